"""Decoder and head of a package joined into one graph of token ids, for onnxruntime-genai.

    model = text_graph(folder, description, config.decoder, context)

The nodes are those of the package's own graphs, without the branches of adapters, and they read the same
bytes of the same data files: nothing is quantised or stored again. Added in front are the embedding rows,
the rotary tables and what genai does not say outright (lengths and rows from the attention mask); behind
them only the shape of the logits changes.

ONNX Runtime refuses weights outside of a graph's folder, so the graph belongs into the package's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import DTypeLike

from phi4.configs.decoder import DecoderConfig
from phi4.configs.rope import Regime, inverse_frequencies
from phi4.onnx.build.network.graph import CONTRIB
from phi4.onnx.build.plain import drop_branches, drop_unused
from phi4.onnx.package.description import Description, EmbeddingLayout
from phi4.onnx.package.rotary_order import padded_half
from phi4.shapes import AnyArray

IDS, MASK, POSITIONS, LOGITS = "input_ids", "attention_mask", "position_ids", "logits"
PAST, PRESENT = "past_key_values.{layer}.{kind}", "present.{layer}.{kind}"
KINDS = ("key", "value")


def text_graph(folder: Path, description: Description, config: DecoderConfig, context: int) -> ir.Model:
    """The text model of a package as one graph.

    Inputs: `input_ids`, `position_ids` `[B, T]` int64; `attention_mask` `[B, S]` int64, 1 = a position the
    row holds after the pass, and every row's new positions stand side by side, padding behind them;
    `past_key_values.<i>.key`, `.value` `[B, K, past, H]`. Outputs: `logits` `[B, 1, V]` of each row's last
    position, `present.<i>.key`, `.value` `[B, K, present, H]`, which may be the memory of the past.

    Args:
        folder: The package.
        description: What its `phi4_onnx.json` says.
        config: The decoder.
        context: Longest sequence the rotary tables are made for.
    """
    model = ir.load(folder / "decoder.onnx")
    graph = model.graph
    drop_branches(graph)
    inner = {value.name: value for value in graph.inputs}
    front = _Front(config, context)
    known = front.pass_inputs()
    known["hidden"] = front.embedded(folder, description.embedding)
    for name, value in known.items():
        inner[name].replace_all_uses_with(value)
    graph.insert_before(graph[0], front.nodes)
    for value in front.constants:
        graph.register_initializer(value)
    _set_inputs(graph, config, front.inputs, inner)
    _append_head(graph, folder, config)
    drop_unused(graph)
    graph.name = "genai"
    return model


class _Front:
    """What stands before the decoder's nodes: values made from genai's inputs."""

    def __init__(self, config: DecoderConfig, context: int) -> None:
        self.config = config
        self.short = min(config.original_max_position_embeddings, context)
        self.context = context
        self._tape = ir.tape.Tape()
        self.constants: list[ir.Value] = []
        self._num_values = 0
        self.ids, self.mask, self.positions = self.inputs = (
            _value(IDS, np.int64, ("B", "T")),
            _value(MASK, np.int64, ("B", "S")),
            _value(POSITIONS, np.int64, ("B", "T")),
        )

    @property
    def nodes(self) -> Sequence[ir.Node]:
        """Nodes so far, in order."""
        return self._tape.nodes

    def pass_inputs(self) -> dict[str, ir.Value]:
        """The decoder's inputs by name, but for `hidden` and the cache."""
        held = self._op("ReduceSum", self.mask, self._constant([1]), keepdims=0)  # [B] positions a row holds
        last = self._op("Sub", held, self._constant(1))
        width = self._op("Squeeze", self._op("Shape", self.mask, start=1, end=2))
        cos, sin = self._tables()
        return {
            "positions": self._table_rows(held),
            "lengths": self._cast(last, ir.DataType.INT32),
            "total": self._cast(width, ir.DataType.INT32),
            "cos": cos,
            "sin": sin,
            "rows": self._last_rows(last),
        }

    def embedded(self, folder: Path, layout: EmbeddingLayout) -> ir.Value:
        """`[B, T, D]` rows of the embedding table, read where the head's weights stand."""
        rows, columns = self.config.vocab_size, self.config.hidden_size

        def stored(name: str, dtype: DTypeLike, offset: int, width: int) -> ir.Value:
            kind = np.dtype(dtype)
            tensor = ir.ExternalTensor(
                location=layout.file,
                offset=offset,
                length=rows * width * kind.itemsize,
                dtype=ir.DataType.from_numpy(kind),
                name=f"embedding.{name}",
                shape=ir.Shape((rows, width)),
                base_dir=folder,
            )
            return self._keep(tensor)

        if layout.kind != "nbits":
            table = stored(
                "rows", np.float32 if layout.kind == "fp32" else np.float16, layout.offset, columns
            )
            return self._cast(self._op("Gather", table, self.ids, axis=0), ir.DataType.FLOAT)
        blocks = layout.num_blocks(columns)
        embedded = self._op(
            "GatherBlockQuantized",
            stored("blocks", np.uint8, layout.offset, blocks * layout.block_size * layout.bits // 8),
            self.ids,
            stored("scales", np.float32, layout.scales_offset, blocks),
            domain=CONTRIB,
            bits=layout.bits,
            block_size=layout.block_size,
            gather_axis=0,
            quantize_axis=1,
        )
        starts, ends, axes = (self._constant([number]) for number in (0, columns, 2))
        return self._op("Slice", embedded, starts, ends, axes)  # blocks may reach beyond the last column

    def _table_rows(self, held: ir.Value) -> ir.Value:
        """`[B, T]` rows of the rotary tables: those of the long regime stand below the short ones.

        The longest row chooses for all, as in the reference implementation. Each for itself is not to be
        had: of several prompts at once, GroupQueryAttention reads the first position of the first row only.
        """
        if self.context == self.short:
            return self._op("Identity", self.positions)
        beyond = self._op("Greater", self._op("ReduceMax", held, keepdims=0), self._constant(self.short))
        below = self._op("Mul", self._cast(beyond, ir.DataType.INT64), self._constant(self.short))
        return self._op("Add", self.positions, below)

    def _last_rows(self, last: ir.Value) -> ir.Value:
        """`[B]` places in `[B * T]` of each row's last new position."""
        first = self._op("Gather", self.positions, self._constant(0), axis=1)  # [B] position of a row's first
        shape = self._op("Shape", self.ids)
        batch, width = (self._op("Gather", shape, self._constant(axis), axis=0) for axis in (0, 1))
        starts = self._op("Range", self._constant(0), self._op("Mul", batch, width), width)
        return self._op("Add", starts, self._op("Sub", last, first))

    def _tables(self) -> tuple[ir.Value, ir.Value]:
        """cos and sin `[short + context, padded half]`, from constants: made once, when a session opens.

        Stored they would take 52 MB in the released model and double the built-in one. The arithmetic is
        that of `phi4.onnx.serving.tables`: float32 angles, float64 cosines.
        """
        regimes: list[tuple[Regime, int]] = [("short", self.short)]
        if self.context > self.short:
            regimes.append(("long", self.context))
        angles = [self._angles(regime, rows) for regime, rows in regimes]
        both = self._cast(self._op("Concat", *angles, axis=0), ir.DataType.DOUBLE)
        factor = np.ones(padded_half(self.config), np.float64)
        factor[: self.config.num_frequencies] = self.config.attention_factor
        cos, sin = (
            self._cast(
                self._op("Mul", self._op(name, both), self._constant(factor, np.float64)), ir.DataType.FLOAT
            )
            for name in ("Cos", "Sin")
        )
        return cos, sin

    def _angles(self, regime: Regime, rows: int) -> ir.Value:
        """`[rows, padded half]` float32; dimensions that only fill the width up turn by 0."""
        real = inverse_frequencies(self.config, regime)
        frequencies = np.zeros((1, padded_half(self.config)), np.float32)
        frequencies[0, : len(real)] = real
        steps = self._op("Range", *(self._constant(number, np.float32) for number in (0, rows, 1)))
        column = self._op("Unsqueeze", steps, self._constant([1]))
        return self._op("Mul", column, self._constant(frequencies, np.float32))

    def _op(self, kind: str, *inputs: ir.Value, domain: str = "", **attributes: Any) -> ir.Value:
        value = self._tape.op(kind, inputs, attributes, domain=domain)
        value.name = f"front.{self._num_values}"
        self._num_values += 1
        return value

    def _cast(self, value: ir.Value, to: ir.DataType) -> ir.Value:
        return self._op("Cast", value, to=to)

    def _constant(self, values: Any, dtype: DTypeLike = np.int64) -> ir.Value:
        array: AnyArray = np.asarray(values, dtype)
        return self._keep(ir.tensor(array, name=f"front.constant.{len(self.constants)}"))

    def _keep(self, tensor: ir.TensorProtocol) -> ir.Value:
        assert isinstance(tensor.shape, ir.Shape)
        kind = ir.TensorType(tensor.dtype)
        value = ir.Value(name=tensor.name, type=kind, shape=tensor.shape, const_value=tensor)
        self.constants.append(value)
        return value


def _value(name: str, dtype: DTypeLike, shape: Sequence[int | str]) -> ir.Value:
    kind = ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))
    return ir.Value(name=name, type=kind, shape=ir.Shape(shape))


def _set_inputs(
    graph: ir.Graph, config: DecoderConfig, front: Sequence[ir.Value], inner: dict[str | None, ir.Value]
) -> None:
    """genai's inputs in place of the decoder's; the cache keeps its values under genai's names."""
    caches = []
    for layer in range(config.num_hidden_layers):
        for kind in KINDS:
            cache = inner[f"past_{kind}.{layer}"]
            cache.name = PAST.format(layer=layer, kind=kind)
            cache.shape = ir.Shape(("B", config.num_key_value_heads, "past", config.head_dim))
            caches.append(cache)
    graph.inputs[:] = [*front, *caches]


def _append_head(graph: ir.Graph, folder: Path, config: DecoderConfig) -> None:
    """The head's nodes behind the decoder's, and genai's outputs in place of both."""
    picked, *presents = graph.outputs
    head = ir.load(folder / "head.onnx").graph
    head.inputs[0].replace_all_uses_with(picked)
    logits = head.outputs[0]
    head.outputs.clear()
    nodes, weights = list(head), list(head.initializers.values())
    for value in (*weights, *(output for node in nodes for output in node.outputs)):
        value.name = f"head.{value.name}"  # both graphs number their values from 0
    head.remove(nodes, safe=False)
    head.initializers.clear()
    for weight in weights:
        graph.register_initializer(weight)
    tape = ir.tape.Tape()
    axis = ir.Value(
        name="head.axis",
        type=ir.TensorType(ir.DataType.INT64),
        shape=ir.Shape((1,)),
        const_value=ir.tensor(np.array([1], np.int64), name="head.axis"),
    )
    graph.register_initializer(axis)
    last = tape.op("Unsqueeze", [logits, axis])  # [R, V] to [B, 1, V]: one wanted position a row
    last.name, last.type = LOGITS, ir.TensorType(ir.DataType.FLOAT)
    last.shape = ir.Shape(("B", 1, config.vocab_size))
    graph.extend([*nodes, *tape.nodes])
    for place, cache in enumerate(presents):
        cache.name = PRESENT.format(layer=place // 2, kind=KINDS[place % 2])
        cache.shape = ir.Shape(("B", config.num_key_value_heads, "present", config.head_dim))
    graph.outputs[:] = [last, *presents]
