"""Rows to one micro-batch of plain arrays: right padding, bucketed lengths, target positions.

This half runs in worker processes and never imports torch; `batch.py` turns the arrays into tensors.
Targets are listed as flat positions, so the loss computes logits for them alone and the device
never has to count a mask. Lengths are rounded up to a few sizes: similar batches then reuse memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phi4.configs.routing import AudioProjector, route
from phi4.errors import TrainingError
from phi4.shapes import BoolArray, FloatArray, IntArray
from phi4.types import AudioArrays, ImageArrays, ModelInputs

TOKEN_BUCKET = 8
FRAME_BUCKET = 64
TARGET_BUCKET = 64
IGNORED = -100


@dataclass(frozen=True)
class TrainRow:
    """One prepared sample.

    Attributes:
        inputs: Tokens, media and `loss_mask`.
        transcript_ids: Token ids of what the row's recording says, for CTC; None = not known.
        segments: `[T]` numbers of the packed documents of a row; None = one document.
        glyphs: `[n, 2]` places and classes of characters in the one picture, see `glyphs.glyph_targets`.
        pieces: `[n, 2]` places and ids of pieces of text in the one picture, see `glyphs.piece_targets`.
    """

    inputs: ModelInputs
    transcript_ids: IntArray | None = None
    segments: IntArray | None = None
    glyphs: IntArray | None = None
    pieces: IntArray | None = None


@dataclass(frozen=True)
class Collated:
    """A micro-batch as arrays; the fields mirror `phi4.model.batch.ModelBatch` where names agree.

    Attributes:
        input_ids: `[B, T]` int64.
        position_ids: `[B, T]` int64, restarting with each segment.
        segments: `[B, T]` int64 or None.
        lengths: `[B]` real tokens per row.
        adapters: Adapter tuple per row.
        target_positions: `[n]` int64: hidden state at this flat place predicts the target.
        targets: `[n]` int64 token ids; `IGNORED` in the padding that fills the bucket.
        pixels, patch_mask, crop_grids, image_positions: All pictures, or None / empty.
        features, num_frames, projectors, audio_positions: All recordings, or None / empty.
        transcripts: Per recording its CTC target ids, in order; empty where unknown.
        glyphs: `[n, 2]` int64: flat place among the patches of all crops, character class; None = no targets.
        pieces: `[n, 2]` int64: flat place among the tokens of all pictures, token id; None = no targets.
        num_tokens: Real tokens of all rows.
    """

    input_ids: IntArray
    position_ids: IntArray
    segments: IntArray | None
    lengths: IntArray
    adapters: tuple[tuple[str, ...], ...]
    target_positions: IntArray
    targets: IntArray
    pixels: FloatArray | None
    patch_mask: BoolArray | None
    crop_grids: tuple[tuple[int, int], ...]
    image_positions: IntArray | None
    features: FloatArray | None
    num_frames: tuple[int, ...]
    projectors: tuple[AudioProjector, ...]
    audio_positions: IntArray | None
    transcripts: tuple[IntArray, ...]
    glyphs: IntArray | None
    pieces: IntArray | None
    num_tokens: int


def round_up(length: int, multiple: int) -> int:
    """The smallest multiple that is at least `length`."""
    return -(-length // multiple) * multiple


def collate(rows: Sequence[TrainRow], pad_id: int = 0) -> Collated:
    """Stack rows of one task.

    Args:
        rows: At least one; each with a `loss_mask`.
        pad_id: Any valid token id; padded positions are never targets.

    Raises:
        TrainingError: A row has no loss mask or nothing to learn from.
    """
    length = round_up(max(len(row.inputs.token_ids) for row in rows), TOKEN_BUCKET)
    packed = any(row.segments is not None for row in rows)
    ids, positions, segments = (np.zeros((len(rows), length), dtype=np.int64) for _ in range(3))
    ids += pad_id
    for index, row in enumerate(rows):
        count = len(row.inputs.token_ids)
        ids[index, :count] = row.inputs.token_ids
        positions[index, :count] = _positions(row, count)
        segments[index] = -1
        segments[index, :count] = 0 if row.segments is None else row.segments
    places, targets = _targets(rows, length)
    inputs = [row.inputs for row in rows]
    routes = [route(bool(row.images), bool(row.audios)) for row in inputs]
    images = [image for row in inputs for image in row.images]
    audios = [audio for row in inputs for audio in row.audios]
    pixels, patch_mask = _stack_images(images)
    return Collated(
        input_ids=ids,
        position_ids=positions,
        segments=segments if packed else None,
        lengths=np.array([len(row.token_ids) for row in inputs], dtype=np.int64),
        adapters=tuple(way.adapters for way in routes),
        target_positions=places,
        targets=targets,
        pixels=pixels,
        patch_mask=patch_mask,
        crop_grids=tuple(_crop_grid(image) for image in images),
        image_positions=_media_positions(inputs, "image", length) if images else None,
        features=_stack_audios(audios),
        num_frames=tuple(len(audio.features) for audio in audios),
        projectors=tuple(
            way.audio_projector for row, way in zip(inputs, routes, strict=True) for _ in row.audios
        ),
        audio_positions=_media_positions(inputs, "audio", length) if audios else None,
        transcripts=tuple(
            np.zeros(0, dtype=np.int64) if row.transcript_ids is None else row.transcript_ids
            for row in rows
            for _ in row.inputs.audios
        ),
        glyphs=_moved([(row.glyphs, sum(i.patch_mask.size for i in row.inputs.images)) for row in rows]),
        pieces=_moved([(row.pieces, sum(i.num_tokens for i in row.inputs.images)) for row in rows]),
        num_tokens=int(sum(len(row.token_ids) for row in inputs)),
    )


def _positions(row: TrainRow, count: int) -> IntArray:
    positions = np.arange(count, dtype=np.int64)
    if row.segments is None or count == 0:
        return positions
    starts = np.flatnonzero(np.diff(row.segments, prepend=row.segments[0] - 1))
    return positions - np.repeat(starts, np.diff(np.append(starts, count)))


def _targets(rows: Sequence[TrainRow], length: int) -> tuple[IntArray, IntArray]:
    """Flat places whose next token is a target, and those tokens, padded to a bucket."""
    places, targets = [], []
    for index, row in enumerate(rows):
        mask = row.inputs.loss_mask
        if mask is None:
            raise TrainingError("a training row came without loss_mask: prepare it with prepare_training")
        wanted = mask[1:].copy()
        if row.segments is not None:
            wanted &= row.segments[1:] == row.segments[:-1]  # a document is never asked for from another
        where = np.flatnonzero(wanted)
        places.append(index * length + where)
        targets.append(row.inputs.token_ids[1:][where])
    place, target = np.concatenate(places), np.concatenate(targets)
    if not len(target):
        raise TrainingError("a micro-batch has no target token: its loss masks are all False")
    padding = round_up(len(target), TARGET_BUCKET) - len(target)
    return np.pad(place, (0, padding)), np.pad(target, (0, padding), constant_values=IGNORED)


def _moved(rows: Sequence[tuple[IntArray | None, int]]) -> IntArray | None:
    """Targets `[n, 2]` of all rows, each row's places moved behind the places of the rows before.

    Args:
        rows: Targets of a row (None or empty = none), and how many places the row has.
    """
    found, places_before = [], 0
    for targets, num_places in rows:
        if targets is not None and len(targets):
            found.append(targets + np.array([places_before, 0]))
        places_before += num_places
    if not found:
        return None
    stacked = np.concatenate(found)
    padding = np.tile(np.array([0, IGNORED]), (round_up(len(stacked), TARGET_BUCKET) - len(stacked), 1))
    return np.concatenate([stacked, padding])


def _stack_images(images: Sequence[ImageArrays]) -> tuple[FloatArray | None, BoolArray | None]:
    if not images:
        return None, None
    masks = np.concatenate([image.patch_mask for image in images])
    return np.concatenate([image.pixels for image in images]), masks


def _crop_grid(image: ImageArrays) -> tuple[int, int]:
    crop_px = image.pixels.shape[-1]
    return image.size_px[0] // crop_px, image.size_px[1] // crop_px


def _stack_audios(audios: Sequence[AudioArrays]) -> FloatArray | None:
    if not audios:
        return None
    frames = round_up(max(len(audio.features) for audio in audios), FRAME_BUCKET)
    stacked = np.zeros((len(audios), frames, audios[0].features.shape[1]), dtype=np.float32)
    for index, audio in enumerate(audios):
        stacked[index, : len(audio.features)] = audio.features
    return stacked


def _media_positions(rows: Sequence[ModelInputs], kind: str, length: int) -> IntArray:
    places = [
        index * length + np.arange(span.start, span.start + span.length, dtype=np.int64)
        for index, row in enumerate(rows)
        for span in sorted(row.spans, key=lambda span: span.index)
        if span.kind == kind
    ]
    return np.concatenate(places)
