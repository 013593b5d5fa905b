"""Layers that both encoders are made of, each named by its tensors.

`EncoderWriter` binds a graph to the source of its weights and to the precision of its linear layers, so
that `w.linear(x, "vision.img_projection.0")` reads, stores and multiplies one layer and forgets it again.
Norms, convolutions, tables and relative biases stay in float32 at every precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import DTypeLike

from phi4.onnx.build.network.graph import GraphWriter
from phi4.onnx.build.network.linear import Precision, linear
from phi4.shapes import AnyArray, FloatArray

Read = Callable[[str], AnyArray]
"""Array of a canonical tensor name."""
FP32 = Precision("fp32")
TORCH_EPSILON = 1e-5
"""Epsilon of a norm whose config names none."""


@dataclass(frozen=True)
class EncoderWriter:
    """A graph, where its weights come from, and the precision of its linear layers.

    Attributes:
        graph: The graph.
        read: Where the tensors come from; each is read once and dropped when it is written.
        precision: Of the layers of attention, MLP and projector.
    """

    graph: GraphWriter
    read: Read
    precision: Precision

    def op(self, kind: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """Append a standard node with one output."""
        return self.graph.op(kind, *inputs, attributes=attributes)

    def constant(self, values: Any, dtype: DTypeLike = np.int64) -> ir.Value:
        """A small constant, by default a shape, axes or indices."""
        return self.graph.constant(values, dtype)

    def output(self, name: str, value: ir.Value, shape: Sequence[int | str]) -> None:
        """Make float32 values an output; names in `shape` are free dimensions."""
        self.graph.output(name, value, np.float32, shape)

    def array(self, name: str) -> FloatArray:
        """A tensor as float32."""
        return np.asarray(self.read(name), np.float32)

    def tensor(self, name: str, shape: tuple[int, ...] | None = None) -> ir.Value:
        """A tensor stored as it is, in float32; `shape` gives it another one of as many values."""
        array = self.array(name)
        return self.graph.weight(name, array if shape is None else array.reshape(shape))

    def linear(self, x: ir.Value, name: str, precision: Precision | None = None) -> ir.Value:
        """The linear layer `name`: `[..., K]` to `[..., N]`.

        Args:
            x: Activations.
            name: Prefix of its weight and bias. A weight of more than two dimensions, such as that of a
                kernel-1 convolution, has its last ones joined.
            precision: None = that of the encoder.
        """
        weight = self.read(f"{name}.weight")
        weight = weight.reshape(len(weight), -1)
        bias = self.array(f"{name}.bias")
        return linear(self.graph, x, f"{name}.weight", weight, precision or self.precision, bias)

    def layer_norm(self, x: ir.Value, name: str, epsilon: float = TORCH_EPSILON) -> ir.Value:
        """The norm `name` over the last axis."""
        scale, bias = self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias")
        return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)

    def projector(self, x: ir.Value, name: str) -> ir.Value:
        """Linear, GELU, linear: encoder vectors to decoder vectors."""
        return self.linear(self.op("Gelu", self.linear(x, f"{name}.0")), f"{name}.2")

    def swish(self, x: ir.Value) -> ir.Value:
        """x * sigmoid(x)."""
        return self.op("Mul", x, self.op("Sigmoid", x))

    def halves(self, x: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The last axis in two."""
        first, second = self.graph.ops("Split", x, count=2, attributes={"axis": -1, "num_outputs": 2})
        return first, second
