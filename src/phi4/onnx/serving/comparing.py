"""Whether two ways of opening a package compute the very same, tried with every form, adapter and encoder.

computed(package, choice) == computed(package, other)
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from phi4.engine.runner import Draw, MediaPiece, Piece, Row, SequenceSpec, StepPlan, TextPiece
from phi4.onnx.package import OnnxPackage
from phi4.onnx.serving.forward import MIN_PREFILL_TOKENS
from phi4.onnx.serving.runner import OrtRunner
from phi4.onnx.serving.session import SessionChoice
from phi4.processing.mel import audio_arrays
from phi4.processing.tiles import tile_image
from phi4.types import AudioArrays, ImageArrays, Modality

_LENGTHS = (3, MIN_PREFILL_TOKENS)
"""Lengths of prompts: one of the decoder itself, one of its form for prompts. A step of one token follows."""
_MOST = 128
"""Vectors of a medium that are fed; all of them were computed."""
_NUM_TOP = 64
_RATE_HZ, _SECONDS = 16_000, 1


def computed(package: OnnxPackage, choice: SessionChoice) -> bytes:
    """Log-probabilities of the best tokens after prompts without and with each adapter and medium.

    Args:
        package: Opened with everything that is going to be used.
        choice: How its sessions are opened.

    Raises:
        InvalidArtifact: A graph cannot be run.
        OutOfMemory: The weights do not fit.
    """
    runner = OrtRunner(package, choice)
    random = np.random.default_rng(0)
    vocab = package.config.decoder.vocab_size
    found = b""
    for adapters in ((), *((name,) for name in package.adapters)):
        for length in _LENGTHS:
            ids = random.integers(0, vocab, min(length, _room(runner)))
            found += _answer(runner, adapters, TextPiece(ids))
    for part, media in _media(package):
        handle = runner.encode(media)
        own = (part,) if part in package.adapters else ()
        found += _answer(runner, own, MediaPiece(handle, 0, min(handle.num_tokens, _room(runner))))
    return found


def _answer(runner: OrtRunner, adapters: tuple[str, ...], prompt: Piece) -> bytes:
    """Log-probabilities after a prompt and after one more token."""
    found = b""
    slot = runner.open(SequenceSpec(adapters, "short", _room(runner) + 1))
    for piece in (prompt, TextPiece(np.zeros(1, np.int64))):
        row = runner.step(StepPlan((Row(slot, (piece,), Draw(num_top=_NUM_TOP)),))).rows[0]
        found += row.top_ids[0].tobytes() + row.top_logprobs[0].tobytes()
    runner.close(slot)
    return found


def _room(runner: OrtRunner) -> int:
    """Longest prompt that is tried."""
    return min(_MOST, runner.info.max_context_tokens - 1)


def _media(package: OnnxPackage) -> Iterator[tuple[Modality, ImageArrays | AudioArrays]]:
    """A noisy picture of one crop and a second of noise, as far as there are encoders."""
    random = np.random.default_rng(1)
    vision, speech = package.config.vision, package.config.speech
    if vision is not None and "vision" in package.parts:
        size = (vision.crop_size, vision.crop_size, 3)
        yield "vision", tile_image(random.integers(0, 256, size, np.uint8), vision)
    if speech is not None and "speech" in package.parts:
        noise = random.uniform(-0.5, 0.5, _RATE_HZ * _SECONDS).astype(np.float32)
        yield "speech", audio_arrays(noise, speech)
