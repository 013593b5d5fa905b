"""One linear layer in a graph, at the precision asked for.

`Precision` is data: the export chooses it per part, a sensitive layer may have one of its own. All kinds
take float32 activations and give float32; what differs is how the weight is stored and multiplied:

* fp32: MatMul.
* fp16: stored in half the bytes, widened when a session opens.
* int8: MatMulNBits of 8 bits in blocks, activations in 8 bits per row and block.
* int4: the same with 4 bits.
* rows8: int8 per output channel, activations quantised per row inside the graph (QuantizeLinear,
  MatMulIntegerToFloat): the fast form for prompts. One scale for a whole activation tensor would ruin
  every row beside one with massive activations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx_ir as ir

from phi4.onnx.build.graph import GraphWriter
from phi4.onnx.build.quantise import quantise_blocks, quantise_channels
from phi4.shapes import AnyArray, FloatArray

Kind = Literal["fp32", "fp16", "int8", "int4", "rows8"]
MIN_BLOCK = 16
"""Shortest block MatMulNBits takes."""
INT8_LEVEL = 4
"""MatMulNBits' accuracy_level for activations in int8, the fast path of every processor with dot products."""


@dataclass(frozen=True)
class Precision:
    """How weights of linear layers are stored and multiplied.

    Attributes:
        kind: See the module.
        block_size: Weights that share a scale in "int8" and "int4", along the input; a power of two from 16.
    """

    kind: Kind = "fp32"
    block_size: int = 128


def fitting_block(precision: Precision, columns: int) -> Precision:
    """The same with blocks no longer than a narrow input needs: a LoRA of rank 16 is not padded to 128."""
    block = precision.block_size
    while block > MIN_BLOCK and block >= 2 * columns:
        block //= 2
    return replace(precision, block_size=block)


def linear(
    g: GraphWriter,
    x: ir.Value,
    name: str,
    weight: AnyArray,
    precision: Precision,
    bias: AnyArray | None = None,
) -> ir.Value:
    """`[..., K]` to `[..., N]`.

    Args:
        g: The graph.
        x: Activations, float32.
        name: Name of the weight, unique in the graph.
        weight: `[N, K]` as released.
        precision: How to store and multiply it.
        bias: `[N]`, kept in float32.
    """
    added = None if bias is None else g.weight(f"{name}.bias", np.asarray(bias, np.float32))
    if precision.kind in ("fp32", "fp16"):
        return _plain(g, x, name, weight, precision, added)
    if precision.kind == "rows8":
        return _rows8(g, x, name, np.asarray(weight, np.float32), added)
    return _blocks(g, x, name, weight, precision, added)


def _plain(
    g: GraphWriter, x: ir.Value, name: str, weight: AnyArray, precision: Precision, bias: ir.Value | None
) -> ir.Value:
    stored = np.float32 if precision.kind == "fp32" else np.float16
    matrix = g.weight(name, np.asarray(weight, np.float32).T.astype(stored))
    if stored is np.float16:
        matrix = g.op("Cast", matrix, attributes={"to": ir.DataType.FLOAT})
    product = g.op("MatMul", x, matrix)
    return product if bias is None else g.op("Add", product, bias)


def _blocks(
    g: GraphWriter, x: ir.Value, name: str, weight: AnyArray, precision: Precision, bias: ir.Value | None
) -> ir.Value:
    bits = 4 if precision.kind == "int4" else 8
    packed, scales = quantise_blocks(weight, bits, precision.block_size)
    return g.contrib(
        "MatMulNBits",
        x,
        g.weight(f"{name}.q{bits}", packed),
        g.weight(f"{name}.scales", scales),
        None,
        None,
        bias,
        K=weight.shape[1],
        N=weight.shape[0],
        bits=bits,
        block_size=precision.block_size,
        accuracy_level=INT8_LEVEL,
    )


def _rows8(g: GraphWriter, x: ir.Value, name: str, weight: FloatArray, bias: ir.Value | None) -> ir.Value:
    """Divide each row by its largest value, quantise with the constant scale 1/127, multiply back."""
    quantised, scales = quantise_channels(weight)
    largest = g.op(
        "ReduceMax",
        g.op("Abs", x),
        g.constant([-1], np.int64),
        attributes={"keepdims": 1},
    )
    largest = g.op("Max", largest, g.constant(1e-30, np.float32))  # a row of zeros stays zeros
    unit = g.op("Div", x, largest)
    step = g.constant(1 / 127, np.float32)
    as_int8 = g.op("QuantizeLinear", unit, step, g.constant(0, np.int8))
    product = g.contrib(
        "MatMulIntegerToFloat",
        as_int8,
        g.weight(f"{name}.q8", quantised.T),
        step,
        g.weight(f"{name}.scales8", scales),
    )
    output = g.op("Mul", product, largest)
    return output if bias is None else g.op("Add", output, bias)
