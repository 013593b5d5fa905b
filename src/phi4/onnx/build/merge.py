"""Weights of a checkpoint with one adapter added to them for good.

Merged(checkpoint, "speech").read("decoder.layers.0.mlp.down_proj.weight")   # W + scale * B A
"""

from __future__ import annotations

import re

import numpy as np

from phi4.checkpoint import Checkpoint
from phi4.checkpoint.keymap import lora_name
from phi4.shapes import AnyArray, FloatArray

_LINEAR = re.compile(r"decoder\.layers\.(\d+)\.([a-z_.]+)\.weight")


class Merged:
    """Tensors by canonical name.

    Args:
        checkpoint: Where they come from.
        adapter: Name of an adapter of the model; None = weights as they are.
    """

    def __init__(self, checkpoint: Checkpoint, adapter: str | None) -> None:
        self._checkpoint = checkpoint
        self._adapter = None if adapter is None else checkpoint.config.adapter(adapter)

    def read(self, name: str) -> AnyArray:
        """One tensor; float32 where the adapter changes it, as stored everywhere else."""
        weight = self._checkpoint.read(name)
        found = _LINEAR.fullmatch(name)
        if self._adapter is None or found is None or found[2] not in self._adapter.target_modules:
            return weight
        narrow, wide = (self._matrix(int(found[1]), found[2], matrix) for matrix in ("A", "B"))
        return weight.astype(np.float32) + np.float32(self._adapter.scale) * (wide @ narrow)

    def _matrix(self, layer: int, target: str, matrix: str) -> FloatArray:
        assert self._adapter is not None
        name = lora_name(layer, target, matrix, self._adapter.name)
        return self._checkpoint.read(name).astype(np.float32)
