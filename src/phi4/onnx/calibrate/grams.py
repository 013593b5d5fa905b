"""What the inputs of linear layers look like: their gram matrices, made when they are asked for.

    grams = Grams(lambda: Walk(weights, rows, choice))
    grams.of("decoder.layers.0.mlp.down_proj")    # [K, K]

Asked for layer after layer, as an export does, the rows walk through the decoder once. No activations are
stored, and no matrices but those of one layer (380 MB in the released model).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from phi4.onnx.calibrate.walk import Walk
from phi4.shapes import FloatArray


class Grams:
    """Gram matrices X^T X of the inputs X of every linear layer of the decoder.

    Args:
        start: Begins a walk; called again when a layer is asked for that lies behind.
        diagonals: Give their diagonals alone, the sums of squares of each input.
    """

    def __init__(self, start: Callable[[], Walk], diagonals: bool = False) -> None:
        self._start = start
        self._diagonals = diagonals
        self._walk: Walk | None = None
        self._layer = -1
        self._found: dict[str, FloatArray] = {}

    def of(self, name: str) -> FloatArray:
        """`[K, K]` of the layer with this name, `[K]` of diagonals; given away, and forgotten here."""
        _, _, layer, target = name.split(".", 3)
        if self._layer != int(layer) or target not in self._found:
            self._reach(int(layer))
        return self._found.pop(target)

    def _reach(self, layer: int) -> None:
        if self._walk is None or self._walk.layer > layer:
            self._walk = self._start()
        self._found = {}
        while self._walk.layer < layer:
            self._walk.advance()
        self._walk.advance(self._add)
        self._layer = layer

    def _add(self, target: str, x: FloatArray) -> None:
        gram = np.asarray(np.square(x).sum(axis=0) if self._diagonals else x.T @ x, np.float32)
        if target in self._found:
            self._found[target] += gram
        else:
            self._found[target] = gram
