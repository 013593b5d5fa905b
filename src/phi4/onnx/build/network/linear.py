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

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import onnx_ir as ir

from phi4.checkpoint.keymap import adapter_of
from phi4.errors import InvalidArtifact
from phi4.onnx.build.network.graph import GraphWriter
from phi4.onnx.package.quantise import Quantise, quantise_channels, round_to_nearest
from phi4.shapes import AnyArray

Kind = Literal["fp32", "fp16", "int8", "int4", "rows8"]
MIN_BLOCK = 16
"""Shortest block MatMulNBits takes."""
INT8_LEVEL = 4
"""MatMulNBits' accuracy_level for activations in int8, the fast path of every processor with dot products."""
SMALL_RANK = 64
"""Adapters up to this rank are never quantised: two thin products take longer to quantise the activations for
than to compute, and their few bytes are not what a step waits for."""
MIDDLE = 128
"""Zero point of "rows8" activations in uint8. Signed ones would be multiplied by a plain loop on processors
without AMX or AVX-VNNI-INT8: 48 against 788 GOP/s measured, with equal results."""


@dataclass(frozen=True)
class Precision:
    """How weights of linear layers are stored and multiplied.

    Attributes:
        kind: See the module.
        block_size: Weights that share a scale in "int8" and "int4", along the input; a power of two from 16.
        quantise: Makes the blocks of "int8" and "int4".
    """

    kind: Kind = "fp32"
    block_size: int = 128
    quantise: Quantise = field(default=round_to_nearest, repr=False)


def fitting_block(precision: Precision, columns: int) -> Precision:
    """The same with blocks no longer than a narrow input needs: a LoRA of rank 16 is not padded to 128."""
    block = precision.block_size
    while block > MIN_BLOCK and block >= 2 * columns:
        block //= 2
    return replace(precision, block_size=block)


def stored_as(name: str, shape: tuple[int, ...], precision: Precision) -> Precision:
    """The precision a weight really gets: small adapters stay in float32 where others are quantised.

    Args:
        name: Its canonical name.
        shape: `[N, K]`.
        precision: Of its layer.
    """
    small = adapter_of(name) is not None and min(shape) <= SMALL_RANK
    return Precision() if small and precision.kind in ("int8", "int4", "rows8") else precision


def stored_bytes(shape: tuple[int, ...], precision: Precision) -> int:
    """Bytes a weight `[N, K]` takes in a package, scales included."""
    rows, columns = shape
    if precision.kind in ("fp32", "fp16"):
        return rows * columns * (4 if precision.kind == "fp32" else 2)
    if precision.kind == "rows8":
        return rows * (columns + 4)
    bits = 4 if precision.kind == "int4" else 8
    return rows * math.ceil(columns / precision.block_size) * (precision.block_size * bits // 8 + 4)


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
        precision: How to store and multiply it, see also `stored_as`.
        bias: `[N]`, kept in float32.

    Raises:
        InvalidArtifact: The weight is not finite, or does not fit fp16.
    """
    precision = stored_as(name, weight.shape, precision)
    added = None if bias is None else g.weight(f"{name}.bias", np.asarray(bias, np.float32))
    if precision.kind in ("fp32", "fp16"):
        return _plain(g, x, name, weight, precision, added)
    if precision.kind == "rows8":
        return _rows8(g, x, name, weight, added)
    return _blocks(g, x, name, weight, precision, added)


def _plain(
    g: GraphWriter, x: ir.Value, name: str, weight: AnyArray, precision: Precision, bias: ir.Value | None
) -> ir.Value:
    stored = np.float32 if precision.kind == "fp32" else np.float16
    with np.errstate(over="ignore"):  # found below, by name
        rows = np.asarray(np.asarray(weight, np.float32), stored)
    _refuse_infinite(name, rows, "give its part another precision" if stored is np.float16 else "")
    matrix = g.weight(name, rows.T)
    if stored is np.float16:
        matrix = g.op("Cast", matrix, attributes={"to": ir.DataType.FLOAT})
    product = g.op("MatMul", x, matrix)
    return product if bias is None else g.op("Add", product, bias)


def _blocks(
    g: GraphWriter, x: ir.Value, name: str, weight: AnyArray, precision: Precision, bias: ir.Value | None
) -> ir.Value:
    bits = 4 if precision.kind == "int4" else 8
    packed, scales = precision.quantise(name, weight, bits, precision.block_size)
    _refuse_infinite(name, scales)
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


def _rows8(g: GraphWriter, x: ir.Value, name: str, weight: AnyArray, bias: ir.Value | None) -> ir.Value:
    """Divide each row by its largest value, quantise with the constant scale 1/127, multiply back."""
    quantised, scales = quantise_channels(weight)
    _refuse_infinite(name, scales)
    largest = g.op(
        "ReduceMax",
        g.op("Abs", x),
        g.constant([-1], np.int64),
        attributes={"keepdims": 1},
    )
    largest = g.op("Max", largest, g.constant(1e-30, np.float32))  # a row of zeros stays zeros
    unit = g.op("Div", x, largest)
    step, middle = g.constant(1 / 127, np.float32), g.constant(MIDDLE, np.uint8)
    product = g.contrib(
        "MatMulIntegerToFloat",
        g.op("QuantizeLinear", unit, step, middle),
        g.weight(f"{name}.q8", quantised.T),
        step,
        g.weight(f"{name}.scales8", scales),
        middle,
    )
    output = g.op("Mul", product, largest)
    return output if bias is None else g.op("Add", output, bias)


def _refuse_infinite(name: str, values: AnyArray, advice: str = "") -> None:
    """Refuse weights, or scales made of them, that are not finite: they would spoil every answer unseen."""
    if not np.isfinite(values).all():
        raise InvalidArtifact(
            f"tensor {name}: holds values that are not finite as {values.dtype}; "
            f"{advice or 'fetch or train the model again'}"
        )
