"""A tiny multimodal model and rows of random media for the trainer's tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from phi4.configs import Phi4Config, tiny_multimodal
from phi4.model import Phi4Model, init_weights
from phi4.train.collate import TrainRow
from phi4.train.objectives import Trainee
from phi4.types import AudioArrays, ImageArrays, MediaSpan, ModelInputs

RowMaker = Callable[..., TrainRow]


@pytest.fixture(scope="session")
def config() -> Phi4Config:
    tiny = tiny_multimodal()
    assert tiny.vision is not None
    return replace(tiny, layout="original", vision=replace(tiny.vision, crop_size=56))


@pytest.fixture
def trainee(config: Phi4Config) -> Trainee:
    model = Phi4Model(config)
    init_weights(model, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    return Trainee(model, ctc=True, glyphs=True)


@pytest.fixture
def make_row(config: Phi4Config) -> RowMaker:
    vision, speech = config.vision, config.speech
    assert vision is not None and speech is not None

    def make(seed: int, image: bool = False, frames: int = 0, answer: int = 4, text: int = 5) -> TrainRow:
        rng = np.random.default_rng(seed)
        images, audios, spans, start = (), (), [], 1
        if image:
            grid, tokens = vision.grid, vision.num_tokens(vision.grid, vision.grid)
            pixels = rng.uniform(-1, 1, (2, 3, 56, 56)).astype(np.float32)
            images = (ImageArrays(pixels, np.ones((2, grid, grid), bool), (56, 56), tokens, ""),)
            spans.append(MediaSpan("image", 0, start, tokens))
            start += tokens
        if frames:
            tokens = speech.num_tokens(frames)
            audios = (
                AudioArrays(rng.normal(size=(frames, 80)).astype(np.float32), tokens, frames / 100, ""),
            )
            spans.append(MediaSpan("audio", 0, start, tokens))
            start += tokens
        ids = rng.integers(4, 250, start + text + answer)
        mask = np.zeros(len(ids), dtype=bool)
        mask[-answer:] = True
        transcript = ids[-3:] if frames else None
        return TrainRow(ModelInputs(ids, images, audios, tuple(spans), mask), transcript)

    return make
