"""Training rows from the generated world of `phi4.data`, through the model's own processor.

Torch-free and picklable: worker processes hold a `WorldSource` and open the tokenizer once each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from phi4.configs import Phi4Config
from phi4.data import Record, generate
from phi4.data.packing import pack
from phi4.processing.processor import Processor
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.processing.tokenizer_build import build_tokenizer
from phi4.processing.tools import render_tool_calls, render_tools
from phi4.shapes import IntArray
from phi4.train.collate import TrainRow
from phi4.train.glyphs import glyph_targets, piece_targets
from phi4.train.settings import Recipe, TaskShare
from phi4.types import ImagePart, ModelInputs, TextPart

PACKED_TOKENS = 256
TOKENIZER_RECORDS = 600


@dataclass(frozen=True)
class WorldSource:
    """Records of the generated world as training rows.

    Attributes:
        config: The model, for its media sizes.
        tokenizer_folder: Holds `tokenizer.json`.
        seed: Seed of the data set.
        pad_id: Filler of rows.
    """

    config: Phi4Config
    tokenizer_folder: str
    seed: int = 0
    pad_id: int = 0

    def rows(self, task: TaskShare, indices: Sequence[int]) -> list[TrainRow]:
        """Dialogues for `sft`, recordings with transcripts for `ctc`, packed documents for `pretrain`."""
        processor = _processor(self.config, self.tokenizer_folder)
        if task.objective == "pretrain":
            return [self._packed(processor, task, index) for index in indices]
        return [self._row(processor, self._record(task, index)) for index in indices]

    def _record(self, task: TaskShare, index: int) -> Record:
        return generate(task.task, "train", index, seed=self.seed, difficulty=task.difficulty)

    def _row(self, processor: Processor, record: Record) -> TrainRow:
        inputs = processor.prepare_training(record.conversation, record.tools)
        spoken = record.metadata.get("spoken") if inputs.audios else None
        transcript = None if spoken is None else _ids(processor, spoken)
        glyphs, pieces = self._written(processor, record)
        return TrainRow(inputs, transcript, glyphs=glyphs, pieces=pieces)

    def _written(self, processor: Processor, record: Record) -> tuple[IntArray | None, IntArray | None]:
        """Places of known characters and pieces of text, for a row with one picture."""
        pictures = [part.source for part in record.media if isinstance(part, ImagePart)]
        if self.config.vision is None or len(pictures) != 1 or "glyphs" not in record.metadata:
            return None, None
        height_px, width_px = np.asarray(pictures[0]).shape[:2]
        where = (record.metadata["glyphs"], width_px, height_px, self.config.vision)
        tokenizer = processor.tokenizer
        ids = [token for text in record.metadata["texts"] for token in tokenizer.encode_text(text)]
        pieces = [(token, tokenizer.decode([token])) for token in ids]
        return glyph_targets(*where), piece_targets(pieces, *where)

    def _packed(self, processor: Processor, task: TaskShare, index: int) -> TrainRow:
        """A row full of documents, each ended by the end-of-text token and seen by itself."""
        end = np.array([processor.tokenizer.tokens.endoftext], dtype=np.int64)
        numbers = range(index * PACKED_TOKENS, (index + 1) * PACKED_TOKENS)  # no document is empty
        documents = (
            np.concatenate([_ids(processor, self._record(task, number).document), end]) for number in numbers
        )
        row = next(pack(documents, PACKED_TOKENS, self.pad_id))
        real = row.segment_ids >= 0
        return TrainRow(ModelInputs(row.token_ids, loss_mask=real), segments=row.segment_ids)


def _ids(processor: Processor, text: str) -> IntArray:
    return np.array(processor.tokenizer.encode_text(text), dtype=np.int64)


@lru_cache(maxsize=2)
def _processor(config: Phi4Config, tokenizer_folder: str) -> Processor:
    """One processor per process."""
    return Processor(config, Phi4Tokenizer.load(tokenizer_folder, config.decoder.vocab_size))


def world_tokenizer(recipe: Recipe, config: Phi4Config, folder: Path) -> Phi4Tokenizer:
    """The recipe's own tokenizer, trained on what its tasks say; an existing one in `folder` is kept.

    The same recipe gives the same file: texts are the first records of each task.
    """
    if not (folder / "tokenizer.json").exists():
        tasks = dict.fromkeys(task.task for stage in recipe.stages for task in stage.tasks)
        texts = [
            text
            for task in tasks
            for index in range(TOKENIZER_RECORDS)
            for text in _texts(generate(task, "train", index, seed=recipe.seed))
        ]
        building = folder.with_name(f".{folder.name}.new")
        build_tokenizer(texts, config.decoder.vocab_size, building)
        building.rename(folder)
    return Phi4Tokenizer.load(folder, config.decoder.vocab_size)


def _texts(record: Record) -> list[str]:
    parts = [
        part.text for message in record.conversation for part in message.parts if isinstance(part, TextPart)
    ]
    offered = [render_tools(record.tools)] if record.tools else []
    called = [render_tool_calls(record.reply.tool_calls)] if record.reply.tool_calls else []
    return [*parts, *offered, *called, *([record.metadata["spoken"]] if "spoken" in record.metadata else [])]
