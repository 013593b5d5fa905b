"""Rows on their way through the decoder, one layer at a time: float32, in the memory of one layer.

    walk = Walk(DecoderWeights(checkpoint, config), rows, choice)
    walk.advance(see=lambda target, x: ...)    # x [T, K]: what goes into each linear layer

Weights are read from the checkpoint as they are needed, and handed to one small graph as inputs. So a model
of any size is walked through on a machine that could never hold it in float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from phi4.checkpoint import Checkpoint
from phi4.configs import DECODER_TARGETS, Phi4Config
from phi4.configs.decoder import DecoderConfig
from phi4.configs.rope import regime_for
from phi4.onnx.build.merge import Merged
from phi4.onnx.build.network.decoder import QKV
from phi4.onnx.build.network.head import TABLE, UNTIED
from phi4.onnx.build.network.layer import NORMS, build_layer
from phi4.onnx.calibrate.rows import CalibrationRow
from phi4.onnx.package.rotary_order import qkv_row_order
from phi4.onnx.serving.binding import BoundSession
from phi4.onnx.serving.session import SessionChoice
from phi4.onnx.serving.tables import RotaryTables
from phi4.shapes import AnyArray, FloatArray

LayerWeights = dict[str, FloatArray]
"""Norms and matrices of a layer, by `NORMS` and `DECODER_TARGETS`."""
See = Callable[[str, FloatArray], None]
"""Told a target and its inputs `[T, K]` of one row, which are good until it returns."""


class DecoderWeights:
    """Weights of the decoder in float32, rows in the order of the graphs.

    Args:
        checkpoint: The model.
        config: As it is exported: which adapters there are.
        merge_adapter: Adapter that is part of the weights for good.
    """

    def __init__(self, checkpoint: Checkpoint, config: Phi4Config, merge_adapter: str | None = None) -> None:
        self.config: DecoderConfig = config.decoder
        self._checkpoint = checkpoint
        self._base = Merged(checkpoint, merge_adapter)
        self._order = qkv_row_order(config.decoder)

    def layer(self, layer: int, adapter: str | None = None) -> LayerWeights:
        """Everything one layer multiplies with, an adapter of a row added."""
        source = self._base if adapter is None else Merged(self._checkpoint, adapter)
        prefix = f"decoder.layers.{layer}"
        norms = {name: _float(source.read(f"{prefix}.{name}.weight")) for name in NORMS}
        return norms | {target: self._matrix(source, layer, target) for target in DECODER_TARGETS}

    def matrix(self, layer: int, target: str) -> FloatArray:
        """One matrix without any row's adapter: what is quantised."""
        return self._matrix(self._base, layer, target)

    def table(self) -> AnyArray:
        """The embedding table `[V, D]`, in the type it is stored in."""
        return self._base.read(TABLE)

    def head(self) -> AnyArray:
        """The matrix of the logits `[V, D]`, in the type it is stored in."""
        return self._base.read(TABLE if self.config.tie_word_embeddings else UNTIED)

    def normed(self, hidden: FloatArray) -> FloatArray:
        """The last norm, `[n, D]` to `[n, D]`."""
        mean = np.square(hidden).mean(axis=-1, keepdims=True, dtype=np.float32)
        weight = _float(self._base.read("decoder.norm.weight"))
        return np.asarray(hidden / np.sqrt(mean + np.float32(self.config.rms_norm_eps)) * weight, np.float32)

    def _matrix(self, source: Merged, layer: int, target: str) -> FloatArray:
        weight = source.read(f"decoder.layers.{layer}.{target}.weight")
        return _float(weight[self._order] if target == QKV else weight)


class LayerGraph:
    """One layer with any weights.

    Args:
        config: The decoder.
        choice: Provider and threads.
    """

    def __init__(self, config: DecoderConfig, choice: SessionChoice) -> None:
        self._config = config
        self._tables = RotaryTables(config)
        self._cache = np.zeros((2, 1, config.num_key_value_heads, 0, config.head_dim), np.float32)
        with tempfile.TemporaryDirectory(prefix="phi4-", ignore_cleanup_errors=True) as folder:
            path = Path(folder) / "layer.onnx"
            build_layer(config, path)
            self._graph = BoundSession(path, choice)

    def run(self, hidden: FloatArray, weights: LayerWeights, see: See | None = None) -> FloatArray:
        """`[T, D]` to `[T, D]`, a whole sequence from its first position on.

        Raises:
            OutOfMemory: Work space ran out.
        """
        count, config = len(hidden), self._config
        behind = np.empty((count, config.hidden_size), np.float32)
        widths = {target: config.target_dims(target)[0] for target in DECODER_TARGETS}
        seen = {target: np.empty((count, width), np.float32) for target, width in widths.items()}
        inputs = self._inputs(hidden, weights)
        # Lent, not held: all of it lives until the graph has run, and weights not a moment longer.
        for name, array in inputs.items():
            self._graph.lend(name, array)
        self._bind_cache(count)
        self._graph.take("next", behind[None])
        for target, array in seen.items():
            self._graph.take(f"{target}.input", array[None])
        self._graph.run()
        if see is not None:
            for target, array in seen.items():
                see(target, array)
        return behind

    def _inputs(self, hidden: FloatArray, weights: LayerWeights) -> dict[str, AnyArray]:
        count = len(hidden)
        self._tables.grow(count)
        regime = regime_for(self._config, count)
        inputs: dict[str, AnyArray] = {
            "hidden": np.ascontiguousarray(hidden)[None],
            "positions": self._tables.positions(0, count, regime)[None],
            "lengths": np.array([count - 1], np.int32),
            "total": np.array(count, np.int32),
            "cos": self._tables.cos,
            "sin": self._tables.sin,
        }
        return inputs | {f"{name}.weight": np.ascontiguousarray(array) for name, array in weights.items()}

    def _bind_cache(self, count: int) -> None:
        if self._cache.shape[3] < count:
            shape = (*self._cache.shape[:3], count, self._config.head_dim)
            self._cache = np.zeros(shape, np.float32)
        for kind, array in zip(("key", "value"), self._cache, strict=True):
            self._graph.lend(f"past_{kind}.0", array, written=f"present_{kind}.0")


class Walk:
    """Rows behind some number of layers.

    Attributes:
        layer: The next layer.
        hidden: `[T, D]` for each row.

    Args:
        weights: The decoder.
        rows: At least one.
        choice: Provider and threads.
    """

    def __init__(
        self, weights: DecoderWeights, rows: Sequence[CalibrationRow], choice: SessionChoice
    ) -> None:
        self.layer = 0
        table = weights.table()
        self.hidden = [row.embedded(table) for row in rows]
        self._weights = weights
        self._graph = LayerGraph(weights.config, choice)
        self._groups = by_adapter(rows)

    def advance(self, see: See | None = None) -> None:
        """Take all rows through the next layer.

        Args:
            see: Told what goes into each linear layer, row by row.
        """
        for adapter, members in self._groups.items():
            weights = self._weights.layer(self.layer, adapter)
            for place in members:
                self.hidden[place] = self._graph.run(self.hidden[place], weights, see)
        self.layer += 1


def by_adapter(rows: Sequence[CalibrationRow]) -> Mapping[str | None, list[int]]:
    """Places of the rows of each adapter, so that its weights are made once a layer."""
    groups: dict[str | None, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(row.adapter, []).append(place)
    return groups


def final_states(
    weights: DecoderWeights, rows: Sequence[CalibrationRow], choice: SessionChoice
) -> list[FloatArray]:
    """Hidden states of the judged positions behind the last norm, `[n, D]` for each row."""
    walk = Walk(weights, rows, choice)
    for _ in range(weights.config.num_hidden_layers):
        walk.advance()
    return [weights.normed(hidden[row.judged]) for hidden, row in zip(walk.hidden, rows, strict=True)]


def _float(array: AnyArray) -> FloatArray:
    return np.asarray(array, np.float32)
