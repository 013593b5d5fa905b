"""A collated micro-batch as tensors on the training device."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from phi4.model.batch import AudioBatch, ImageBatch, ModelBatch
from phi4.shapes import AnyArray
from phi4.train.collate import Collated


@dataclass(frozen=True)
class TrainBatch:
    """What an objective takes.

    Attributes:
        model: Input of the model.
        target_positions: `[n]` int64, flat places in `[B * T]` whose hidden state predicts a target.
        targets: `[n]` int64, `collate.IGNORED` where the bucket is padded.
        transcripts: `[recordings, S]` int64 CTC targets, padded with 0.
        transcribed: `[recordings]` float, 1 = the transcript is known.
        transcript_lengths: Real ids of each; 0 where the transcript is unknown. Host numbers on purpose.
        glyphs: `[n, 2]` int64 places and classes of characters, see `collate.Collated`; None = none known.
        pieces: `[n, 2]` int64 places and ids of pieces of text, likewise.
        num_tokens: Real tokens, for the speed display.
        num_rows: Rows.
    """

    model: ModelBatch
    target_positions: Tensor
    targets: Tensor
    transcripts: Tensor | None
    transcribed: Tensor | None
    transcript_lengths: tuple[int, ...]
    glyphs: Tensor | None
    pieces: Tensor | None
    num_tokens: int
    num_rows: int

    def to(self, device: torch.device) -> TrainBatch:
        """The batch on `device`, without waiting for the copies."""
        if device.type == "cpu":
            return self
        return replace(
            self,
            model=self.model.to(device),
            target_positions=self.target_positions.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
            transcripts=None if self.transcripts is None else self.transcripts.to(device, non_blocking=True),
            transcribed=None if self.transcribed is None else self.transcribed.to(device, non_blocking=True),
            glyphs=None if self.glyphs is None else self.glyphs.to(device, non_blocking=True),
            pieces=None if self.pieces is None else self.pieces.to(device, non_blocking=True),
        )


def tensor_batch(arrays: Collated, pin: bool = False, short_context: int = 4096) -> TrainBatch:
    """Tensors over the arrays' memory, or over pinned copies of it.

    Args:
        arrays: From `collate`.
        pin: Copy to page-locked memory, so that `TrainBatch.to` overlaps with work on a GPU.
        short_context: Rows longer than this take the long LongRoPE factors.
    """

    def tensor(array: AnyArray) -> Tensor:
        made = torch.from_numpy(np.ascontiguousarray(array))
        return made.pin_memory() if pin else made

    images = audios = transcripts = transcribed = None
    if arrays.pixels is not None and arrays.patch_mask is not None:
        images = ImageBatch(tensor(arrays.pixels), arrays.patch_mask, arrays.crop_grids)
    if arrays.features is not None:
        audios = AudioBatch(tensor(arrays.features), arrays.num_frames, arrays.projectors)
        width = max(1, max(len(ids) for ids in arrays.transcripts))
        padded = np.zeros((len(arrays.transcripts), width), dtype=np.int64)
        for row, ids in enumerate(arrays.transcripts):
            padded[row, : len(ids)] = ids
        transcripts = tensor(padded)
        transcribed = tensor(np.array([len(ids) > 0 for ids in arrays.transcripts], dtype=np.float32))
    model = ModelBatch(
        input_ids=tensor(arrays.input_ids),
        position_ids=tensor(arrays.position_ids),
        regimes=tensor((arrays.lengths > short_context).astype(np.int64)),
        adapters=arrays.adapters,
        segments=None if arrays.segments is None else tensor(arrays.segments),
        images=images,
        image_positions=None if arrays.image_positions is None else tensor(arrays.image_positions),
        audios=audios,
        audio_positions=None if arrays.audio_positions is None else tensor(arrays.audio_positions),
    )
    return TrainBatch(
        model=model,
        target_positions=tensor(arrays.target_positions),
        targets=tensor(arrays.targets),
        transcripts=transcripts,
        transcribed=transcribed,
        transcript_lengths=tuple(len(ids) for ids in arrays.transcripts),
        glyphs=None if arrays.glyphs is None else tensor(arrays.glyphs),
        pieces=None if arrays.pieces is None else tensor(arrays.pieces),
        num_tokens=arrays.num_tokens,
        num_rows=len(arrays.lengths),
    )
