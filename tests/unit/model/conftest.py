"""Small models for the tests of the network: grids of 8x8 patches, a few hundred thousand numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from phi4.configs import AdapterConfig, Phi4Config, tiny_multimodal
from phi4.model import Phi4Model, init_weights
from phi4.types import AudioArrays, ImageArrays, MediaSpan, ModelInputs


@pytest.fixture(scope="session")
def config() -> Phi4Config:
    """The tiny model with crops of 112 pixels, 8 patches a side."""
    base = tiny_multimodal()
    assert base.vision is not None
    return replace(base, vision=replace(base.vision, crop_size=112))


@pytest.fixture
def model(config: Phi4Config) -> Phi4Model:
    """A fresh model whose adapters do something."""
    made = Phi4Model(config)
    generator = torch.Generator().manual_seed(0)
    init_weights(made, generator)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if ".lora_B." in name or name.endswith((".b1", ".b2", ".bias")):
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return made.eval()


@pytest.fixture(scope="session")
def picture(config: Phi4Config) -> Callable[..., ImageArrays]:
    """Builds a picture: `picture(seed, crop_rows, crop_cols, valid_rows, valid_cols)` in patches."""

    def build(
        seed: int = 0,
        crop_rows: int = 1,
        crop_cols: int = 1,
        valid_rows: int | None = None,
        valid_cols: int | None = None,
    ) -> ImageArrays:
        vision = config.vision
        assert vision is not None
        grid, side = vision.grid, vision.crop_size
        rows = crop_rows * grid if valid_rows is None else valid_rows
        cols = crop_cols * grid if valid_cols is None else valid_cols
        whole = np.zeros((crop_rows * grid, crop_cols * grid), dtype=np.bool_)
        whole[:rows, :cols] = True
        cut = whole.reshape(crop_rows, grid, crop_cols, grid).transpose(0, 2, 1, 3).reshape(-1, grid, grid)
        mask = np.concatenate((np.ones((1, grid, grid), dtype=np.bool_), cut))
        pixels = np.random.default_rng(seed).uniform(-1, 1, (len(mask), 3, side, side)).astype(np.float32)
        return ImageArrays(
            pixels, mask, (crop_rows * side, crop_cols * side), vision.num_tokens(rows, cols), str(seed)
        )

    return build


@pytest.fixture(scope="session")
def recording() -> Callable[[int, int], AudioArrays]:
    """Builds a recording: `recording(seed, num_frames)`."""

    def build(seed: int, num_frames: int) -> AudioArrays:
        features = np.random.default_rng(seed).standard_normal((num_frames, 80)).astype(np.float32)
        return AudioArrays(features, -(-num_frames // 8), num_frames / 100, str(seed))

    return build


@pytest.fixture(scope="session")
def row() -> Callable[..., ModelInputs]:
    """Builds a row: ids, pictures and recordings in order; a medium stands for its placeholders."""

    def build(*items: int | ImageArrays | AudioArrays) -> ModelInputs:
        ids: list[int] = []
        images: list[ImageArrays] = []
        audios: list[AudioArrays] = []
        spans: list[MediaSpan] = []
        for item in items:
            if isinstance(item, int):
                ids.append(item)
                continue
            if isinstance(item, ImageArrays):
                spans.append(MediaSpan("image", len(images), len(ids), item.num_tokens))
                images.append(item)
            else:
                spans.append(MediaSpan("audio", len(audios), len(ids), item.num_tokens))
                audios.append(item)
            ids += [1] * item.num_tokens
        return ModelInputs(np.array(ids), tuple(images), tuple(audios), tuple(spans))

    return build


@pytest.fixture(scope="session")
def user_adapter() -> AdapterConfig:
    return AdapterConfig("mine", 3, 6.0, target_modules=("self_attn.qkv_proj", "mlp.down_proj"))
