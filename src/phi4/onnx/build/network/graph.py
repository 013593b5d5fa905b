"""Writing an ONNX graph node by node: values in, values out, unique names, weights beside the graph.

    g = GraphWriter("head", sink)
    picked = g.input("picked", np.float32, ("R", 256))
    g.output("logits", g.op("MatMul", picked, g.weight("lm_head.weight", matrix)), np.float32, ("R", 1024))
    save_graph(g.model(), path)

Large arrays go to the sink (one external file a graph), small ones into the graph itself. Nothing here
knows of layers or precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import DTypeLike

from phi4.onnx.build.weights import WeightSink
from phi4.shapes import AnyArray
from phi4.version import __version__

OPSET = 21
IR_VERSION = 10
CONTRIB = "com.microsoft"
"""Domain of ONNX Runtime's own operators."""
INLINE_BYTES = 1024
"""Arrays up to this size stand in the graph itself; shape inference needs to see those that are shapes."""


class GraphWriter:
    """One graph under construction.

    Args:
        name: Name of the graph.
        sink: Where its weights go.
    """

    def __init__(self, name: str, sink: WeightSink) -> None:
        self._name = name
        self._sink = sink
        self._tape = ir.tape.Tape()
        self._inputs: list[ir.Value] = []
        self._outputs: list[ir.Value] = []
        self._initializers: dict[str, ir.Value] = {}
        self._num_values = 0

    def input(self, name: str, dtype: DTypeLike, shape: Sequence[int | str]) -> ir.Value:
        """An input; names in `shape` are free dimensions."""
        kind = ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))
        value = ir.Value(name=name, type=kind, shape=ir.Shape(shape))
        self._inputs.append(value)
        return value

    def output(self, name: str, value: ir.Value, dtype: DTypeLike, shape: Sequence[int | str]) -> None:
        """Make a value an output; names in `shape` are free dimensions."""
        value.name = name
        value.type, value.shape = ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype))), ir.Shape(shape)
        self._outputs.append(value)

    def op(
        self, kind: str, *inputs: ir.Value | None, domain: str = "", attributes: dict[str, Any] | None = None
    ) -> ir.Value:
        """Append a node with one output; None stands for an optional input that is left out."""
        return self._named(self._tape.op(kind, inputs, attributes or {}, domain=domain))

    def ops(
        self,
        kind: str,
        *inputs: ir.Value | None,
        count: int,
        domain: str = "",
        attributes: dict[str, Any] | None = None,
    ) -> tuple[ir.Value, ...]:
        """Append a node with `count` outputs."""
        values = self._tape.op_multi_out(kind, inputs, attributes or {}, domain=domain, num_outputs=count)
        return tuple(self._named(value) for value in values)

    def contrib(self, kind: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """Append a node of ONNX Runtime's own domain with one output."""
        return self.op(kind, *inputs, domain=CONTRIB, attributes=attributes)

    def weight(self, name: str, array: AnyArray) -> ir.Value:
        """A weight under a name of its own; asked for twice it is stored once.

        Args:
            name: Unique in the graph; by convention the tensor's canonical name, with a suffix for what
                quantising makes of it.
            array: Its values, in the type they are stored in.
        """
        if name not in self._initializers:
            array = np.ascontiguousarray(array)
            inline = array.nbytes <= INLINE_BYTES
            tensor = ir.tensor(array, name=name) if inline else self._sink.put(name, array)
            self._initializers[name] = ir.Value(
                name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
            )
        return self._initializers[name]

    def constant(self, values: Any, dtype: DTypeLike) -> ir.Value:
        """A small constant, such as a shape or a scalar; equal ones are stored once."""
        array = np.asarray(values, dtype)
        return self.weight(f"const.{array.dtype}.{array.shape}.{array.tolist()}".replace(" ", ""), array)

    def when(
        self, condition: ir.Value, then: Callable[[], ir.Value], otherwise: Callable[[], ir.Value]
    ) -> ir.Value:
        """One of two values, of which only the chosen one is computed.

        Args:
            condition: `[]` bool.
            then: Appends the nodes of the first branch and returns its value, made by a node of that branch;
                values of the graph around it may be read.
            otherwise: The same for the second branch.
        """
        branches = {}
        for name, make in (("then_branch", then), ("else_branch", otherwise)):
            outer, self._tape = self._tape, ir.tape.Tape()
            try:
                value = make()
                branches[name] = ir.Graph([], [value], nodes=self._tape.nodes, name=name)
            finally:
                self._tape = outer
        return self.op("If", condition, attributes=branches)

    def model(self) -> ir.Model:
        """The finished model."""
        graph = ir.Graph(
            self._inputs,
            self._outputs,
            nodes=self._tape.nodes,
            initializers=tuple(self._initializers.values()),
            opset_imports={"": OPSET, CONTRIB: 1},
            name=self._name,
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="phi4", producer_version=__version__)

    def _named(self, value: ir.Value) -> ir.Value:
        # Unique over all branches: ONNX Runtime takes equal names in a branch and around it for a cycle.
        value.name = f"v{self._num_values}"
        self._num_values += 1
        return value


def save_graph(model: ir.Model, path: Path) -> None:
    """Write a graph whose weights are in its sink's file already."""
    part = path.with_suffix(".part")
    part.write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))
    part.replace(path)
