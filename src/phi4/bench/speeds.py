"""What is timed on a loaded model, through the runner protocol alone.

Each function is a context: it makes ready what the clock shall not see and gives a function that takes one
sample. Token ids are drawn from a fixed seed: which ones they are changes nothing about the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from phi4.api import Phi4
from phi4.configs import regime_for
from phi4.engine.runner import Draw, ModelRunner, Nothing, Row, SequenceSpec, Slot, StepPlan, TextPiece
from phi4.processing.mel import audio_arrays
from phi4.processing.tiles import tile_image
from phi4.shapes import IntArray
from phi4.types import AudioArrays, ImageArrays

Sample = Callable[[], float]
RECORDING_S = 10.0
_RATE_HZ = 16_000
_CROPS = (3, 2)


@dataclass(frozen=True)
class Subject:
    """A loaded model under a name.

    Attributes:
        label: Name in the report.
        model: The model.
    """

    label: str
    model: Phi4

    @property
    def runner(self) -> ModelRunner:
        """Its backend."""
        return self.model.generator.runner

    def token_ids(self, count: int) -> IntArray:
        """Random ids `[count]`, always the same."""
        return np.random.default_rng(count).integers(0, self.model.tokenizer.vocab_size, count)

    def open(self, reserved: int) -> Slot:
        """An empty sequence of text, of the LongRoPE regime its full length has."""
        regime = regime_for(self.model.config.decoder, reserved)
        return self.runner.open(SequenceSpec(regime=regime, reserved_tokens=reserved))

    def feed(self, slot: Slot, token_ids: IntArray) -> int:
        """Append a prompt in chunks as the engine does; returns the token drawn after it."""
        chunk = self.runner.info.max_step_tokens
        token = -1
        for start in range(0, len(token_ids), chunk):
            piece = TextPiece(token_ids[start : start + chunk])
            last = start + chunk >= len(token_ids)
            result = self.runner.step(StepPlan((Row(slot, (piece,), Draw() if last else Nothing()),)))
            token = int(result.rows[0].token_ids[-1]) if last else token
        return token


@contextmanager
def prefill(subject: Subject, num_tokens: int) -> Iterator[Sample]:
    """Tokens a second of a prompt, up to and with the first token of the answer."""
    token_ids = subject.token_ids(num_tokens)

    def once() -> float:
        slot = subject.open(num_tokens + 1)
        try:
            start = time.perf_counter()
            subject.feed(slot, token_ids)
            return num_tokens / (time.perf_counter() - start)
        finally:
            subject.runner.close(slot)

    yield once


@contextmanager
def decode(subject: Subject, rows: int, after: int, steps: int) -> Iterator[Sample]:
    """Tokens a second of all rows together, each continuing a prompt of `after` tokens by `steps`.

    Raises:
        OutOfMemory: No room for so many rows.
    """
    runner, slots = subject.runner, list[Slot]()
    try:
        for number in range(rows):
            slots.append(subject.open(after + steps + 1))
            if number:
                runner.copy_prefix(slots[0], slots[number], after)
            else:
                first = subject.feed(slots[0], subject.token_ids(after))

        def once() -> float:
            for slot in slots:
                runner.truncate(slot, after)
            tokens = _step(runner, slots, [first] * rows)
            start = time.perf_counter()
            for _ in range(steps):
                tokens = _step(runner, slots, tokens)
            return rows * steps / (time.perf_counter() - start)

        yield once
    finally:
        for slot in slots:
            runner.close(slot)


def _step(runner: ModelRunner, slots: list[Slot], tokens: list[int]) -> list[int]:
    """Each row takes its token and draws the next one."""
    pieces = [TextPiece(np.array([token], np.int64)) for token in tokens]
    plan = StepPlan(tuple(Row(slot, (piece,), Draw()) for slot, piece in zip(slots, pieces, strict=True)))
    return [int(row.token_ids[-1]) for row in runner.step(plan).rows]


@contextmanager
def encode_picture(subject: Subject) -> Iterator[Sample]:
    """Milliseconds a crop of the vision encoder, for a picture of several crops."""
    vision = subject.model.config.vision
    assert vision is not None, "only models with a vision encoder are asked"
    columns, rows = _CROPS if vision.max_crops >= _CROPS[0] * _CROPS[1] else (1, 1)
    shape = (rows * vision.crop_size, columns * vision.crop_size, 3)
    picture = tile_image(np.random.default_rng(0).integers(0, 256, shape, np.uint8), vision)
    _encode(subject.runner, picture)  # the first one also loads the encoder
    yield lambda: 1000 * _encode(subject.runner, picture) / len(picture.pixels)


@contextmanager
def encode_recording(subject: Subject) -> Iterator[Sample]:
    """Milliseconds of the speech encoder for `RECORDING_S` of sound."""
    speech = subject.model.config.speech
    assert speech is not None, "only models with a speech encoder are asked"
    noise = np.random.default_rng(0).normal(0, 0.1, round(RECORDING_S * _RATE_HZ)).astype(np.float32)
    recording = audio_arrays(noise, speech)
    _encode(subject.runner, recording)
    yield lambda: 1000 * _encode(subject.runner, recording)


def _encode(runner: ModelRunner, media: ImageArrays | AudioArrays) -> float:
    start = time.perf_counter()
    handle = runner.encode(media)
    seconds = time.perf_counter() - start
    runner.release(handle)
    return seconds
