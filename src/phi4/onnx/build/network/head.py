"""The graph of the vocabulary head, whose matrix is the embedding table of a tied model.

    layout = build_head(config, read, folder / "head.onnx", Precision("int8"))

The table is stored once: the head multiplies with it, and the runner reads rows of the same bytes to embed
tokens. So its precision is one that keeps the rows apart.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from phi4.configs import Phi4Config
from phi4.errors import InvalidRequest
from phi4.onnx.build.network.decoder import Read
from phi4.onnx.build.network.graph import GraphWriter, save_graph
from phi4.onnx.build.network.linear import Precision, linear
from phi4.onnx.build.weights import WeightSink
from phi4.onnx.package.description import EmbeddingLayout
from phi4.shapes import AnyArray

TABLE = "decoder.embed_tokens.weight"
UNTIED = "decoder.lm_head.weight"


def build_head(config: Phi4Config, read: Read, path: Path, precision: Precision) -> EmbeddingLayout:
    """Write the graph and, beside it, its weights (`<name>.data`).

    Input: `picked` `[R, D]`. Output: `logits` `[R, V]`.

    Args:
        config: The model.
        read: Where the tensors come from.
        path: The graph's file.
        precision: Of the table: fp32, fp16, int8 or int4.

    Returns:
        Where the runner finds the rows of the embedding table.

    Raises:
        InvalidRequest: A precision whose rows cannot be read one by one.
    """
    if precision.kind == "rows8":
        raise InvalidRequest("the head cannot be of precision 'rows8'; choose fp32, fp16, int8 or int4")
    decoder, data = config.decoder, path.with_name(f"{path.name}.data")
    with WeightSink(data) as sink:
        g = GraphWriter("head", sink)
        picked = g.input("picked", np.float32, ("R", decoder.hidden_size))
        if decoder.tie_word_embeddings:
            logits = _product(g, picked, TABLE, read(TABLE), precision)
        else:
            _store(sink, read(TABLE), precision)
            logits = _product(g, picked, UNTIED, read(UNTIED), precision)
        g.output("logits", logits, np.float32, ("R", decoder.vocab_size))
        model = g.model()
        layout = _layout(sink, data.name, precision)
    save_graph(model, path)
    return layout


def _product(g: GraphWriter, x: ir.Value, name: str, table: AnyArray, precision: Precision) -> ir.Value:
    """`[R, D]` to `[R, V]`; the table is stored row by row, `[V, D]`, at every precision."""
    if precision.kind in ("int8", "int4"):
        return linear(g, x, name, table, precision)
    stored = np.float32 if precision.kind == "fp32" else np.float16
    matrix = g.weight(name, np.asarray(table, stored))
    if stored is np.float16:
        matrix = g.op("Cast", matrix, attributes={"to": ir.DataType.FLOAT})
    return g.op("Gemm", x, matrix, attributes={"transB": 1})


def _store(sink: WeightSink, table: AnyArray, precision: Precision) -> None:
    """Put a table into the file for its rows alone: nothing of the graph multiplies with it."""
    if precision.kind in ("fp32", "fp16"):
        sink.put(TABLE, np.ascontiguousarray(table, np.float32 if precision.kind == "fp32" else np.float16))
        return
    bits = 8 if precision.kind == "int8" else 4
    packed, scales = precision.quantise(TABLE, table, bits, precision.block_size)
    sink.put(f"{TABLE}.q{bits}", packed)
    sink.put(f"{TABLE}.scales", scales)


def _layout(sink: WeightSink, file: str, precision: Precision) -> EmbeddingLayout:
    if precision.kind == "fp32":
        return EmbeddingLayout(file, "fp32", sink.places[TABLE].offset)
    if precision.kind == "fp16":
        return EmbeddingLayout(file, "fp16", sink.places[TABLE].offset)
    bits = 8 if precision.kind == "int8" else 4
    return EmbeddingLayout(
        file,
        "nbits",
        sink.places[f"{TABLE}.q{bits}"].offset,
        bits=bits,
        block_size=precision.block_size,
        scales_offset=sink.places[f"{TABLE}.scales"].offset,
    )
