"""What the model takes in one forward pass: token rows and their media, as tensors.

`make_batch` builds it from `ModelInputs` (one per row), padded on the right, where causal attention
needs no mask. A trainer that packs several samples into one row fills `ModelBatch` itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from phi4.configs.rope import Regime
from phi4.configs.routing import AudioProjector, route
from phi4.model.rotary import regime_indices
from phi4.shapes import BoolArray, IntArray
from phi4.types import AudioArrays, ImageArrays, ModelInputs


@dataclass(frozen=True)
class ImageBatch:
    """Pictures for the tower, valid crops only, one picture after the other.

    Attributes:
        pixels: `[C, 3, crop, crop]`; each picture's global view first, then its crops row-major.
        patch_mask: `[C, g, g]` on the CPU, True = the patch shows picture.
        crop_grids: Per picture the (rows, columns) of its local crops.
    """

    pixels: Tensor
    patch_mask: BoolArray
    crop_grids: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class AudioBatch:
    """Recordings for the speech encoder, padded on the right.

    Attributes:
        features: `[n, A, M]` log-mel; what stands in padded frames does not matter.
        num_frames: Real frames of each recording.
        projectors: The projector of each recording: "vision" when its prompt also holds pictures.
    """

    features: Tensor
    num_frames: tuple[int, ...]
    projectors: tuple[AudioProjector, ...]


@dataclass(frozen=True)
class ModelBatch:
    """One forward pass; padding, if any, stands on the right, where no real token can see it.

    Attributes:
        input_ids: `[B, T]` int64; ids at media positions only have to be valid.
        position_ids: `[B, T]` int64, from 0 at the first real token of a sequence.
        regimes: `[B]` int64, LongRoPE regime of each row as an index into `rotary.REGIMES`.
        adapters: Per row the ordered adapter names whose deltas add up.
        segments: `[B, T]` int64 of packed rows: tokens see their own segment only; None = one sequence a row.
        images: Pictures of all rows in order of row, then position.
        image_positions: `[N]` int64, places of their tokens in the flattened `[B * T]`.
        audios: Recordings of all rows in order of row, then position.
        audio_positions: `[N]` int64, places of their tokens in the flattened `[B * T]`.
    """

    input_ids: Tensor
    position_ids: Tensor
    regimes: Tensor
    adapters: tuple[tuple[str, ...], ...]
    segments: Tensor | None = None
    images: ImageBatch | None = None
    image_positions: Tensor | None = None
    audios: AudioBatch | None = None
    audio_positions: Tensor | None = None

    def to(self, device: torch.device | str) -> ModelBatch:
        """The same batch with its tensors on `device`; copies overlap with work where memory is pinned."""

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        images, audios = self.images, self.audios
        return replace(
            self,
            input_ids=self.input_ids.to(device, non_blocking=True),
            position_ids=self.position_ids.to(device, non_blocking=True),
            regimes=self.regimes.to(device, non_blocking=True),
            segments=moved(self.segments),
            images=images and replace(images, pixels=images.pixels.to(device, non_blocking=True)),
            image_positions=moved(self.image_positions),
            audios=audios and replace(audios, features=audios.features.to(device, non_blocking=True)),
            audio_positions=moved(self.audio_positions),
        )


def image_batch(images: Sequence[ImageArrays]) -> ImageBatch:
    """Stack pictures for one tower call."""
    crop_px = images[0].pixels.shape[-1]
    return ImageBatch(
        pixels=torch.from_numpy(np.concatenate([image.pixels for image in images])),
        patch_mask=np.concatenate([image.patch_mask for image in images]),
        crop_grids=tuple((image.size_px[0] // crop_px, image.size_px[1] // crop_px) for image in images),
    )


def audio_batch(audios: Sequence[AudioArrays], projectors: Sequence[AudioProjector]) -> AudioBatch:
    """Stack recordings, padded on the right to the longest."""
    lengths = tuple(len(audio.features) for audio in audios)
    features = np.zeros((len(audios), max(lengths), audios[0].features.shape[1]), dtype=np.float32)
    for row, audio in enumerate(audios):
        features[row, : lengths[row]] = audio.features
    return AudioBatch(features=torch.from_numpy(features), num_frames=lengths, projectors=tuple(projectors))


def make_batch(
    rows: Sequence[ModelInputs],
    regimes: Sequence[Regime],
    adapters: Sequence[tuple[str, ...]] | None = None,
    pad_id: int = 0,
) -> ModelBatch:
    """Build a batch of whole rows, padded on the right.

    Args:
        rows: One sequence each.
        regimes: LongRoPE regime of each row, from `phi4.configs.rope.regime_for`.
        adapters: Adapter tuple of each row; None = by the media it holds (`routing.route`).
        pad_id: Any valid token id.
    """
    routes = [route(bool(row.images), bool(row.audios)) for row in rows]
    length = max(len(row.token_ids) for row in rows)
    ids = np.full((len(rows), length), pad_id, dtype=np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row.token_ids)] = row.token_ids
    images = [image for row in rows for image in row.images]
    audios = [audio for row in rows for audio in row.audios]
    projectors = [way.audio_projector for row, way in zip(rows, routes, strict=True) for _ in row.audios]
    return ModelBatch(
        input_ids=torch.from_numpy(ids),
        position_ids=torch.arange(length).expand(len(rows), -1),
        regimes=regime_indices(regimes, "cpu"),
        adapters=tuple(way.adapters for way in routes) if adapters is None else tuple(adapters),
        images=image_batch(images) if images else None,
        image_positions=torch.from_numpy(_positions(rows, "image", length)) if images else None,
        audios=audio_batch(audios, projectors) if audios else None,
        audio_positions=torch.from_numpy(_positions(rows, "audio", length)) if audios else None,
    )


def _positions(rows: Sequence[ModelInputs], kind: str, length: int) -> IntArray:
    """Flat places of every token of every medium of one kind, in order."""
    places = [
        row_index * length + np.arange(span.start, span.start + span.length, dtype=np.int64)
        for row_index, row in enumerate(rows)
        for span in sorted(row.spans, key=lambda span: span.index)
        if span.kind == kind
    ]
    return np.concatenate(places)
