"""Rows to calibrate and to judge with: prompts as token ids and encoder features, without any text.

    rows = make_rows(checkpoint, config, inputs, choice)       # inputs: what phi4.processing makes

Where the texts come from is the caller's: this floor knows of no data set. Pictures and recordings go
through the encoders in float32, whose graphs are written for the occasion and deleted again.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from phi4.checkpoint import Checkpoint
from phi4.configs import Phi4Config
from phi4.configs.routing import Route, route
from phi4.errors import InvalidRequest
from phi4.onnx.build.options import ExportOptions
from phi4.onnx.build.plan import plan_graphs
from phi4.onnx.serving.encoders import Encoders
from phi4.onnx.serving.session import SessionChoice, open_session, runtime_errors
from phi4.shapes import AnyArray, FloatArray, IntArray
from phi4.types import ModelInputs


@dataclass(frozen=True)
class MediaRun:
    """Positions that hold no tokens: `features` `[n, D]` stand from `start` on."""

    start: int
    features: FloatArray


@dataclass(frozen=True)
class CalibrationRow:
    """One sequence.

    Attributes:
        token_ids: `[T]`; those under a `MediaRun` stand for nothing.
        media: Encoder features, in order of position.
        adapter: The model's adapter that acts on the row; None = the weights as they are.
        judged: `[n]` positions whose next-token distribution counts.
    """

    token_ids: IntArray
    media: tuple[MediaRun, ...]
    adapter: str | None
    judged: IntArray

    def embedded(self, table: AnyArray) -> FloatArray:
        """`[T, D]` float32 vectors, given the embedding table `[V, D]`."""
        hidden = table[self.token_ids].astype(np.float32)
        for run in self.media:
            hidden[run.start : run.start + len(run.features)] = run.features
        return hidden


def make_rows(
    checkpoint: Checkpoint, config: Phi4Config, inputs: Sequence[ModelInputs], choice: SessionChoice
) -> list[CalibrationRow]:
    """Encode the media of prompts and route them.

    Args:
        checkpoint: The model.
        config: The parts and adapters it is used with, from `exported_config`.
        inputs: Prompts; with a loss mask only the positions before its targets are judged.
        choice: Provider and threads of the encoders.

    Raises:
        InvalidRequest: No prompts, an empty or too long one, an id beyond the vocabulary, or a medium the
            model has no part for.
    """
    if not inputs:
        raise InvalidRequest("no text to calibrate with; give at least one row")
    for number, one in enumerate(inputs):
        _check(config, one, number)
    with _encoders(checkpoint, config, choice) as encoders:
        return [_row(config, one, encoders) for one in inputs]


def digest(inputs: Sequence[ModelInputs]) -> str:
    """SHA-256 of all ids and media: the same rows give the same package."""
    found = hashlib.sha256()
    for one in inputs:
        found.update(np.asarray(one.token_ids, "<i8").tobytes())
        media = [image.digest for image in one.images] + [audio.digest for audio in one.audios]
        found.update("".join(media).encode() + b"\n")
    return found.hexdigest()


def _check(config: Phi4Config, one: ModelInputs, number: int) -> None:
    vocab, most = config.decoder.vocab_size, config.decoder.max_position_embeddings
    ids = one.token_ids
    if not 0 < len(ids) <= most:
        raise InvalidRequest(f"row {number} to calibrate with has {len(ids)} tokens, must have 1 to {most}")
    if int(ids.min()) < 0 or int(ids.max()) >= vocab:
        raise InvalidRequest(f"row {number} to calibrate with has ids outside of 0 to {vocab - 1}")
    for media, part in ((one.images, "vision"), (one.audios, "speech")):
        if media and part not in config.modalities:
            raise InvalidRequest(
                f"row {number} to calibrate with needs the {part} part; export it too, or leave the row out"
            )


def _row(config: Phi4Config, one: ModelInputs, encoders: Encoders) -> CalibrationRow:
    way = route(bool(one.images), bool(one.audios))
    return CalibrationRow(
        np.asarray(one.token_ids, np.int64),
        tuple(_media(one, encoders, way)),
        next((name for name in way.adapters if name in {a.name for a in config.adapters}), None),
        _judged(one),
    )


def _media(one: ModelInputs, encoders: Encoders, way: Route) -> Iterator[MediaRun]:
    with runtime_errors("encoding media to calibrate with"):
        for span in one.spans:
            medium = one.images[span.index] if span.kind == "image" else one.audios[span.index]
            yield MediaRun(span.start, encoders.encode(medium, way.audio_projector))


def _judged(one: ModelInputs) -> IntArray:
    """Positions followed by a target, or without a mask by anything but a position of a medium."""
    if one.loss_mask is not None and one.loss_mask[1:].any():
        return np.flatnonzero(one.loss_mask[1:]).astype(np.int64)
    counts = np.ones(len(one.token_ids), np.bool_)
    for span in one.spans:
        counts[max(0, span.start - 1) : span.start + span.length - 1] = False
    return np.flatnonzero(counts).astype(np.int64)


@contextmanager
def _encoders(checkpoint: Checkpoint, config: Phi4Config, choice: SessionChoice) -> Iterator[Encoders]:
    """The model's encoders in float32, each written when it is first needed."""
    graphs = {graph.name: graph for graph in plan_graphs(config, ExportOptions("fp32"))}
    with tempfile.TemporaryDirectory(prefix="phi4-", ignore_cleanup_errors=True) as folder:

        def opened(name: str) -> onnxruntime.InferenceSession:
            path = Path(folder) / f"{name}.onnx"
            graphs[name].build(checkpoint.read, path)
            return open_session(path, choice)

        yield Encoders(opened, config.vision, config.speech)
