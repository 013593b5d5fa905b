"""The graph of one decoder layer whose weights are inputs and whose linear layers show what goes into them.

    build_layer(config.decoder, folder / "layer.onnx")

One session of it serves all layers of a model, each with the weights of the moment, so that a walk through
the decoder needs the memory of one layer. Its nodes are those of `decoder.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from phi4.configs import DECODER_TARGETS
from phi4.configs.decoder import DecoderConfig
from phi4.onnx.build.network.decoder import DecoderWriter, PassInputs
from phi4.onnx.build.network.graph import GraphWriter, save_graph
from phi4.onnx.build.network.linear import Precision
from phi4.onnx.build.weights import WeightSink
from phi4.shapes import AnyArray

NORMS = ("input_layernorm", "post_attention_layernorm")
"""Vectors of a layer, `[D]` each."""
_PREFIX = "decoder.layers.0."


def build_layer(config: DecoderConfig, path: Path) -> None:
    """Write the graph; it has no weights of its own.

    Inputs: those of the decoder without `rows` and adapters, B = 1; `<norm>.weight` `[D]` for each of
    `NORMS`; `<target>.weight` `[N, K]` for each of `DECODER_TARGETS`, rows of `qkv_proj` in the order of the
    graphs. Outputs: `next` `[1, T, D]`; `<target>.input` `[1, T, K]`; `present_key.0`, `present_value.0`.

    Args:
        config: The decoder.
        path: The graph's file.

    Raises:
        InvalidConfig: A head too narrow for the padded rotary tables.
    """
    with WeightSink(path.with_name(f"{path.name}.data")) as sink:
        g = GraphWriter("layer", sink)
        _LayerWriter(g, config).write_layer()
        model = g.model()
    save_graph(model, path)


class _LayerWriter(DecoderWriter):
    """The decoder's nodes with inputs where it has weights."""

    def __init__(self, g: GraphWriter, config: DecoderConfig) -> None:
        super().__init__(g, config, (), _unread, lambda name: Precision())
        self._seen: dict[str, ir.Value] = {}

    def write_layer(self) -> None:
        """Inputs, nodes and outputs."""
        g, size = self.g, self.config.hidden_size
        hidden = g.input("hidden", np.float32, ("B", "T", size))
        behind, key, value = self._layer(hidden, 0, self._inputs(user_slot=False))
        g.output("next", behind, np.float32, ("B", "T", size))
        for target in DECODER_TARGETS:
            width = self.config.target_dims(target)[0]
            g.output(f"{target}.input", self._seen[target], np.float32, ("B", "T", width))
        self._give_caches(0, key, value)

    def _vector(self, name: str) -> ir.Value:
        return self.g.input(name.removeprefix(_PREFIX), np.float32, (self.config.hidden_size,))

    def _linear(self, x: ir.Value, layer: int, target: str, shared: PassInputs) -> ir.Value:
        g = self.g
        width, height = self.config.target_dims(target)
        self._seen[target] = x
        weight = g.input(f"{target}.weight", np.float32, (height, width))
        flat = g.op("Reshape", x, g.constant([-1, width], np.int64))
        product = g.op("Gemm", flat, weight, attributes={"transB": 1})
        return g.op("Reshape", product, g.constant([1, -1, height], np.int64))


def _unread(name: str) -> AnyArray:
    raise AssertionError(f"{name} is an input")
