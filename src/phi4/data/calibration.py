"""Rows of the small world as prompts to calibrate with or to judge on.

    inputs = world_inputs(processor, 64)              # for calibrating
    inputs = world_inputs(processor, 64, "test")      # for judging

Tasks take turns, so that all kinds of media a model reads are there, each as often as its tasks.
"""

from __future__ import annotations

from collections.abc import Mapping

from phi4.data.generate import generate
from phi4.data.records import Record, Split
from phi4.errors import InvalidRequest
from phi4.onnx.calibrate.texts import text_row
from phi4.processing.processor import Processor
from phi4.types import Modality, ModelInputs

_SEEN: tuple[Modality, ...] = ("vision",)
_HEARD: tuple[Modality, ...] = ("speech",)
NEEDS: Mapping[str, tuple[Modality, ...]] = {
    "text": (),
    "chat": (),
    "command": (),
    "sums": (),
    "table_qa": (),
    "number_qa": (),
    "read_text": _SEEN,
    "page": _SEEN,
    "chart_qa": _SEEN,
    "speech_transcribe": _HEARD,
    "speech_qa": _HEARD,
    "spoken_command": _HEARD,
    "spoken_chart_qa": (*_SEEN, *_HEARD),
}
"""Tasks, and the parts a model must have to read their records; known beforehand, so that a text model needs
neither a voice nor fonts on the machine."""


def world_inputs(
    processor: Processor, count: int, split: Split = "train", seed: int = 0
) -> list[ModelInputs]:
    """Make rows a model can read, finished conversations and documents.

    Args:
        processor: Of the model; its config says which media it reads.
        count: How many rows.
        split: What is held out of "train" makes up "test".
        seed: Seed of the data set.

    Raises:
        InvalidRequest: Not a single row asked for.
        MissingExtra: espeak-ng or the fonts are missing, which recordings and pictures are made with.
    """
    if count < 1:
        raise InvalidRequest(f"{count} rows of the small world: must be at least 1")
    have = processor.config.modalities
    tasks = [task for task, parts in NEEDS.items() if set(parts) <= set(have)]
    places = (divmod(number, len(tasks)) for number in range(count))
    return [_inputs(generate(tasks[turn], split, index, seed=seed), processor) for index, turn in places]


def _inputs(record: Record, processor: Processor) -> ModelInputs:
    if not record.messages:
        return text_row(record.document, processor)
    return processor.prepare_training(record.conversation, record.tools)
