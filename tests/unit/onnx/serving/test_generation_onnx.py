"""Whole answers through the engine: the ONNX runner says what the torch runner says, token for token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phi4.checkpoint import write_manifest
from phi4.configs import Phi4Config
from phi4.engine.generator import Generator
from phi4.engine.request import Request
from phi4.model import build_model
from phi4.onnx import open_package
from phi4.onnx.serving.runner import OrtRunner
from phi4.onnx.serving.session import SessionChoice
from phi4.processing.mel import audio_arrays
from phi4.processing.processor import Processor
from phi4.processing.tiles import tile_image
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.testing.media import chirp, ramp_picture
from phi4.testing.tiny import tiny_config, tiny_tensors, write_tiny_tokenizer
from phi4.torch_runner.runner import TorchRunner
from phi4.types import MediaSpan, ModelInputs, SamplingParams

ORIGINAL_MAX = 64


@pytest.fixture(scope="module")
def config() -> Phi4Config:
    return tiny_config(original_max=ORIGINAL_MAX, max_positions=512)


@pytest.fixture(scope="module")
def folder(config: Phi4Config, tmp_path_factory: pytest.TempPathFactory, write_package: Any) -> Path:
    target: Path = tmp_path_factory.mktemp("generation") / "p"
    write_package(target, config, dict(tiny_tensors(config)))
    write_tiny_tokenizer(target)
    write_manifest(target)
    return target


def row(config: Phi4Config, length: int, image: bool, audio: bool, seed: int) -> ModelInputs:
    """Random text with media after the first token; `length` counts text tokens only."""
    assert config.vision is not None and config.speech is not None
    images = (tile_image(ramp_picture(70 + seed, 50), config.vision),) if image else ()
    audios = (audio_arrays(chirp(0.5 + seed / 10), config.speech),) if audio else ()
    spans: list[MediaSpan] = []
    at = 1
    for kind, media in (("image", images), ("audio", audios)):
        for medium in media:
            spans.append(MediaSpan(kind, 0, at, medium.num_tokens))  # type: ignore[arg-type]
            at += medium.num_tokens + 1
    total = length + sum(span.length for span in spans)
    ids = np.random.default_rng(seed).integers(0, 256, total)
    return ModelInputs(ids, images, audios, tuple(spans))


def requests(config: Phi4Config) -> list[Request]:
    """Text, pictures, recordings and both; several cross the LongRoPE boundary while they answer."""
    greedy = SamplingParams(max_new_tokens=20)
    kinds = [(False, False), (True, False), (False, True), (True, True)] * 2
    rows = [row(config, 12 + 10 * n, *kind, n) for n, kind in enumerate(kinds)]
    return [Request(inputs=inputs, sampling=greedy) for inputs in rows]


def answers(generator: Generator, asked: list[Request]) -> list[tuple[int, ...]]:
    return [done.token_ids for done in generator.generate(asked)]


def test_greedy_answers_equal_those_of_torch_alone_and_together(config: Phi4Config, folder: Path) -> None:
    tokenizer = Phi4Tokenizer.load(folder, config.decoder.vocab_size)
    processor = Processor(config, tokenizer)
    model = build_model(config, dict(tiny_tensors(config)).__getitem__, dtype=torch.float32)
    runner = OrtRunner(open_package(folder), SessionChoice(threads=1), max_step_tokens=50)
    torch_generator = Generator(TorchRunner(model), processor, tokenizer)
    generator = Generator(runner, processor, tokenizer)
    asked = requests(config)
    expected = answers(torch_generator, asked)
    assert answers(generator, asked) == expected
    assert [answers(generator, [one])[0] for one in asked] == expected
    assert (runner.num_open, runner.num_handles) == (0, 0)
    assert any(done.timing.rope_crossings for done in generator.generate(asked))


def test_scored_targets_equal_those_of_torch(config: Phi4Config, folder: Path) -> None:
    tokenizer = Phi4Tokenizer.load(folder, config.decoder.vocab_size)
    processor = Processor(config, tokenizer)
    model = build_model(config, dict(tiny_tensors(config)).__getitem__, dtype=torch.float32)
    runner = OrtRunner(open_package(folder), SessionChoice(threads=1))
    pairs = [(request, "turn on the light") for request in requests(config)]
    expected = Generator(TorchRunner(model), processor, tokenizer).score_batch(pairs, with_end=True)
    scored = Generator(runner, processor, tokenizer).score_batch(pairs, with_end=True)
    for left, right in zip(scored, expected, strict=True):
        assert (left.token_ids, left.is_greedy) == (right.token_ids, right.is_greedy)
        np.testing.assert_allclose(left.logprobs, right.logprobs, atol=1e-4)
