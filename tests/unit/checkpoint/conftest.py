"""A tiny model with random weights, and its directory in each layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from phi4.checkpoint import expected_shapes, optional_shapes, save_checkpoint
from phi4.configs import Layout, Phi4Config, tiny_multimodal
from phi4.shapes import AnyArray

Tensors = dict[str, AnyArray]


@pytest.fixture(scope="session")
def tiny() -> Phi4Config:
    """The tiny multimodal model, two adapters."""
    return tiny_multimodal()


@pytest.fixture(scope="session")
def tensors(tiny: Phi4Config) -> Tensors:
    """Random weights by our names, the unused vision tensors included; every third one is bfloat16."""
    rng = np.random.default_rng(7)
    shapes = expected_shapes(tiny) | optional_shapes(tiny)
    del shapes["decoder.lm_head.weight"]
    made: Tensors = {}
    for index, (name, shape) in enumerate(shapes.items()):
        values = rng.standard_normal(shape).astype(np.float32)
        made[name] = values.astype(ml_dtypes.bfloat16) if index % 3 == 0 else values
    return made


@pytest.fixture
def saved(tmp_path: Path, tiny: Phi4Config, tensors: Tensors) -> Callable[..., Path]:
    """Writes the tiny model into a directory in a layout; `shards` = how large a shard may grow."""

    def save(layout: Layout, shard_bytes: int = 1 << 30, name: str = "model") -> Path:
        save_checkpoint(tmp_path / name, tiny, tensors, layout, shard_bytes)
        return tmp_path / name

    return save
