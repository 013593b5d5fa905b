"""What each linear layer loses on its own: quantised alone, how far do next-token distributions move?

    found = sensitivity(weights, rows, Precision("int4"), choice)
    found["decoder.layers.3.mlp.down_proj"].nats

All layers are measured in one walk: behind the layer that is quantised, its states go on beside the exact
ones through weights that are loaded anyway. Weights alone are quantised here, activations stay exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from phi4.configs import DECODER_TARGETS
from phi4.onnx.build.network.linear import Precision
from phi4.onnx.calibrate.divergence import Fidelity, compare_heads
from phi4.onnx.calibrate.rows import CalibrationRow
from phi4.onnx.calibrate.walk import DecoderWeights, LayerGraph, LayerWeights, by_adapter
from phi4.onnx.package.quantise import dequantise_blocks
from phi4.onnx.serving.session import SessionChoice
from phi4.shapes import FloatArray

EXACT = ""
Passed = Callable[[int], None]
"""Told how often all rows have gone through a layer since it was told last."""


def sensitivity(
    weights: DecoderWeights,
    rows: Sequence[CalibrationRow],
    precision: Precision,
    choice: SessionChoice,
    layers: range | None = None,
    passed: Passed | None = None,
) -> dict[str, Fidelity]:
    """Measure each linear layer of some decoder layers.

    States of every measured layer are kept, 4 * layers * positions * D * 4 bytes (805 MB for all 32 layers of
    the released model and 512 positions), so measure large models a few layers at a time
    (`phi4.onnx.calibrate.measuring.measure_in_turns`).

    Args:
        weights: The decoder.
        rows: What to judge on.
        precision: int4 or int8, with the block size and method whose loss is measured.
        choice: Provider and threads.
        layers: Decoder layers to measure; None = all.
        passed: Hears of the progress, `num_passes` in all.

    Returns:
        By name of the linear layer, "decoder.layers.0.mlp.down_proj", in forward order.
    """
    count = weights.config.num_hidden_layers
    layers = range(count) if layers is None else layers
    walk = _ManyWalks(weights, rows, choice)
    for layer in range(count):
        forms = walk.advance(layer, precision if layer in layers else None)
        if passed is not None:
            passed(forms)
    states = {name: walk.judged(name) for name in walk.hidden}
    expected = states.pop(EXACT)
    return {name: d.fidelity for name, d in compare_heads(weights.head(), expected, states).items()}


def num_passes(count: int, layers: range) -> int:
    """How often all rows go through a layer of a model of `count` when these are measured."""
    begun = [len(DECODER_TARGETS) * (layer in layers) for layer in range(count)]
    return sum(1 + sum(begun[: layer + 1]) for layer in range(count))


class _ManyWalks:
    """The exact states of rows, and beside them those of every form met so far.

    Attributes:
        hidden: Name of the quantised layer -> `[T, D]` of each row.
    """

    def __init__(
        self, weights: DecoderWeights, rows: Sequence[CalibrationRow], choice: SessionChoice
    ) -> None:
        table = weights.table()
        self.hidden = {EXACT: [row.embedded(table) for row in rows]}
        self._rows, self._weights = rows, weights
        self._graph = LayerGraph(weights.config, choice)
        self._groups = by_adapter(rows)

    def advance(self, layer: int, precision: Precision | None) -> int:
        """Take all states through a layer; with a precision, each of its matrices begins a new form.

        Returns:
            How many forms there are now, the exact one included.
        """
        before = list(self.hidden[EXACT])
        losses = {} if precision is None else self._losses(layer, precision)
        fresh: dict[str, list[FloatArray]] = {name: list(before) for name in losses}
        for adapter, members in self._groups.items():
            exact = self._weights.layer(layer, adapter)
            for states in self.hidden.values():
                self._run(states, states, members, exact)
            for name, loss in losses.items():
                target = name.split(".", 3)[3]
                # The adapter of a row is added to weights that were quantised without it.
                self._run(before, fresh[name], members, exact | {target: exact[target] + loss})
        self.hidden |= fresh
        return len(self.hidden)

    def judged(self, name: str) -> FloatArray:
        """`[n, D]` states of the judged positions of all rows, behind the last norm."""
        picked = [hidden[row.judged] for hidden, row in zip(self.hidden[name], self._rows, strict=True)]
        return self._weights.normed(np.concatenate(picked))

    def _losses(self, layer: int, precision: Precision) -> dict[str, FloatArray]:
        """What quantising adds to each matrix of a layer."""
        return {
            f"decoder.layers.{layer}.{target}": self._loss(layer, target, precision)
            for target in DECODER_TARGETS
        }

    def _loss(self, layer: int, target: str, precision: Precision) -> FloatArray:
        weight = self._weights.matrix(layer, target)
        bits = 4 if precision.kind == "int4" else 8
        name = f"decoder.layers.{layer}.{target}.weight"
        packed, scales = precision.quantise(name, weight, bits, precision.block_size)
        return dequantise_blocks(packed, scales, bits, weight.shape[1]) - weight

    def _run(
        self, before: list[FloatArray], after: list[FloatArray], members: list[int], weights: LayerWeights
    ) -> None:
        for place in members:
            after[place] = self._graph.run(before[place], weights)
