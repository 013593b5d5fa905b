"""The graph of the decoder: embedded positions in, hidden states of wanted positions out.

    build_decoder(config, read, folder / "decoder.onnx", choose=lambda name: Precision("int4"))

It is `phi4.model.decoder` node by node, with ONNX Runtime's GroupQueryAttention in place of rotation, cache
and attention. The cache is an input and an output of equal shape, to be bound to one memory. Adapters are
branches that an input opens: rows without any run none of them, and no weight is copied or reloaded to
change them. The embedding table and the head are elsewhere (`head.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from phi4.checkpoint.keymap import lora_name
from phi4.configs import AdapterConfig, DecoderConfig, Phi4Config
from phi4.onnx.build.network.graph import CONTRIB, GraphWriter, save_graph
from phi4.onnx.build.network.linear import Precision, fitting_block, linear
from phi4.onnx.build.weights import WeightSink
from phi4.onnx.package.description import CacheKind
from phi4.onnx.package.rotary_order import padded_half, qkv_row_order
from phi4.shapes import AnyArray, FloatArray

Read = Callable[[str], AnyArray]
"""Array of a canonical tensor name."""
Choose = Callable[[str], Precision]
"""Precision of the linear layer with a canonical name, "decoder.layers.0.mlp.down_proj"."""
QKV = "self_attn.qkv_proj"


def build_decoder(
    config: Phi4Config,
    read: Read,
    path: Path,
    choose: Choose,
    user_slot: bool = True,
    cache: CacheKind = "fp32",
) -> None:
    """Write the graph and, beside it, its weights (`<name>.data`).

    Inputs: `hidden` `[B, T, D]`; `positions` `[B, T]` int64, rows of the rotary tables; `lengths` `[B]`
    int32, positions a row holds after the pass, less one; `total` `[]` int32, the most positions of any
    row; `cos`, `sin` `[P, half]`; `rows` `[R]` int64, wanted positions as row * T + t; `adapter.<name>`
    `[]` bool; with a slot `user` `[]` bool and, for each matrix, `user.layers.<i>.<target>.A` `[K, r]` and
    `.B` `[r, N]`; `past_key.<i>`, `past_value.<i>` `[B, K, S, H]`. Outputs: `picked` `[R, D]` after the last
    norm, `present_key.<i>`, `present_value.<i>`.

    Args:
        config: The model; every adapter in it goes into the graph.
        read: Where the tensors come from; each is read once and dropped when it is written.
        path: The graph's file.
        choose: Precision of each linear layer; its adapters share it.
        user_slot: Whether an adapter of the user's own can be added at run time.
        cache: How keys and values are kept; that of `past_key.<i>` and its like.

    Raises:
        InvalidConfig: A head too narrow for the padded rotary tables.
    """
    with WeightSink(path.with_name(f"{path.name}.data")) as sink:
        g = GraphWriter("decoder", sink)
        writer = DecoderWriter(g, config.decoder, config.adapters, read, choose, cache)
        writer.write(user_slot)
        model = g.model()
    save_graph(model, path)


@dataclass(frozen=True)
class PassInputs:
    """What every layer reads: sequence lengths, rotary tables, and the flags of adapters."""

    positions: ir.Value
    lengths: ir.Value
    total: ir.Value
    cos: ir.Value
    sin: ir.Value
    flags: dict[str, ir.Value]
    user: ir.Value | None
    adapted: ir.Value | None


class DecoderWriter:
    """The graph under construction with what it is made of.

    `layer.py` overrides where its vectors and matrices come from.
    """

    def __init__(
        self,
        g: GraphWriter,
        config: DecoderConfig,
        adapters: tuple[AdapterConfig, ...],
        read: Read,
        choose: Choose,
        cache: CacheKind = "fp32",
    ) -> None:
        self.cache = np.float16 if cache == "fp16" else np.float32
        self.g, self.config, self.adapters, self.read, self.choose = g, config, adapters, read, choose
        self.row_order = qkv_row_order(config)

    def write(self, user_slot: bool) -> None:
        g, size = self.g, self.config.hidden_size
        hidden = g.input("hidden", np.float32, ("B", "T", size))
        shared = self._inputs(user_slot)
        wanted = g.input("rows", np.int64, ("R",))
        presents: list[tuple[ir.Value, ir.Value]] = []
        for layer in range(self.config.num_hidden_layers):
            hidden, key, value = self._layer(hidden, layer, shared)
            presents.append((key, value))
        flat = g.op("Reshape", hidden, g.constant([-1, size], np.int64))
        picked = g.op("Gather", flat, wanted, attributes={"axis": 0})
        g.output("picked", self._norm(picked, "decoder.norm"), np.float32, ("R", size))
        for layer, caches in enumerate(presents):
            self._give_caches(layer, *caches)

    def _layer(self, hidden: ir.Value, layer: int, shared: PassInputs) -> tuple[ir.Value, ir.Value, ir.Value]:
        """`[B, T, D]` to the same behind one layer, and the layer's caches."""
        mixed, key, value = self._attention(hidden, layer, shared)
        hidden = self.g.op("Add", hidden, mixed)
        return self.g.op("Add", hidden, self._mlp(hidden, layer, shared)), key, value

    def _give_caches(self, layer: int, key: ir.Value, value: ir.Value) -> None:
        self.g.output(f"present_key.{layer}", key, self.cache, self._cache_shape)
        self.g.output(f"present_value.{layer}", value, self.cache, self._cache_shape)

    @property
    def _cache_shape(self) -> tuple[int | str, ...]:
        return ("B", self.config.num_key_value_heads, "S", self.config.head_dim)

    def _inputs(self, user_slot: bool) -> PassInputs:
        g, half = self.g, padded_half(self.config)
        inputs = {
            "positions": g.input("positions", np.int64, ("B", "T")),
            "lengths": g.input("lengths", np.int32, ("B",)),
            "total": g.input("total", np.int32, ()),
            "cos": g.input("cos", np.float32, ("P", half)),
            "sin": g.input("sin", np.float32, ("P", half)),
        }
        flags = {a.name: g.input(f"adapter.{a.name}", np.bool_, ()) for a in self.adapters}
        user = g.input("user", np.bool_, ()) if user_slot else None
        adapted: ir.Value | None = None
        for flag in (*flags.values(), *([] if user is None else [user])):
            adapted = flag if adapted is None else g.op("Or", adapted, flag)
        inputs |= {name: self._as_cached(inputs[name]) for name in ("cos", "sin")}
        return PassInputs(**inputs, flags=flags, user=user, adapted=adapted)

    def _as_cached(self, value: ir.Value) -> ir.Value:
        """A float32 value in the type of the cache: attention has one type for all it takes."""
        if self.cache is np.float32:
            return value
        return self.g.op("Cast", value, attributes={"to": ir.DataType.FLOAT16})

    def _attention(
        self, hidden: ir.Value, layer: int, shared: PassInputs
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        """`[B, T, D]` to the layer's contribution and its caches."""
        g, config = self.g, self.config
        normed = self._norm(hidden, f"decoder.layers.{layer}.input_layernorm")
        qkv = self._linear(normed, layer, QKV, shared)
        past = [g.input(f"past_{kind}.{layer}", self.cache, self._cache_shape) for kind in ("key", "value")]
        mixed, key, value = g.ops(
            "GroupQueryAttention",
            self._as_cached(qkv),
            None,
            None,
            *past,
            shared.lengths,
            shared.total,
            shared.cos,
            shared.sin,
            shared.positions,
            count=3,
            domain=CONTRIB,
            attributes={
                "num_heads": config.num_attention_heads,
                "kv_num_heads": config.num_key_value_heads,
                "do_rotary": 1,
                "rotary_interleaved": 0,
            },
        )
        if self.cache is not np.float32:
            mixed = g.op("Cast", mixed, attributes={"to": ir.DataType.FLOAT})
        return self._linear(mixed, layer, "self_attn.o_proj", shared), key, value

    def _mlp(self, hidden: ir.Value, layer: int, shared: PassInputs) -> ir.Value:
        """SwiGLU: the first half of `gate_up_proj` is the gate."""
        g = self.g
        normed = self._norm(hidden, f"decoder.layers.{layer}.post_attention_layernorm")
        both = self._linear(normed, layer, "mlp.gate_up_proj", shared)
        gate, value = g.ops("Split", both, count=2, attributes={"axis": -1, "num_outputs": 2})
        swish = g.op("Mul", gate, g.op("Sigmoid", gate))
        return self._linear(g.op("Mul", value, swish), layer, "mlp.down_proj", shared)

    def _norm(self, hidden: ir.Value, name: str) -> ir.Value:
        weight = self._vector(f"{name}.weight")
        attributes = {"axis": -1, "epsilon": self.config.rms_norm_eps, "stash_type": 1}
        return self.g.op("SimplifiedLayerNormalization", hidden, weight, attributes=attributes)

    def _vector(self, name: str) -> ir.Value:
        return self.g.weight(name, np.asarray(self.read(name), np.float32))

    def _linear(self, x: ir.Value, layer: int, target: str, shared: PassInputs) -> ir.Value:
        """One linear layer and its adapters: `[..., K]` to `[..., N]`."""
        g, name = self.g, f"decoder.layers.{layer}.{target}"
        precision = self.choose(name)
        base = linear(g, x, f"{name}.weight", self._ordered(self.read(f"{name}.weight"), target), precision)
        if shared.adapted is None:
            return base

        def added(output: ir.Value, flag: ir.Value, delta: Callable[[], ir.Value]) -> ir.Value:
            return g.when(flag, lambda: g.op("Add", output, delta()), lambda: g.op("Identity", output))

        def adapted() -> ir.Value:
            output = base
            for adapter in self.adapters:
                if target in adapter.target_modules:
                    delta = _Lora(self, layer, target, adapter, precision)
                    output = added(output, shared.flags[adapter.name], lambda d=delta: d(x))  # type: ignore[misc]
            if shared.user is not None:
                output = added(output, shared.user, lambda: self._user(x, layer, target))
            return g.op("Identity", output) if output is base else output

        if shared.user is not None:
            self._user_inputs(layer, target)
        return g.when(shared.adapted, adapted, lambda: g.op("Identity", base))

    def _user_inputs(self, layer: int, target: str) -> None:
        width, height = self.config.target_dims(target)
        rank = f"r.{layer}.{target}"
        self._slot = tuple(
            self.g.input(f"user.layers.{layer}.{target}.{matrix}", np.float32, shape)
            for matrix, shape in (("A", (width, rank)), ("B", (rank, height)))
        )

    def _user(self, x: ir.Value, layer: int, target: str) -> ir.Value:
        narrow, wide = self._slot
        return self.g.op("MatMul", self.g.op("MatMul", x, narrow), wide)

    def _ordered(self, rows: AnyArray, target: str) -> AnyArray:
        """Rows of a matrix in the order the graph keeps a head's dimensions in; others stay as they are."""
        return rows[self.row_order] if target == QKV else rows


@dataclass(frozen=True)
class _Lora:
    """One adapter of one linear layer, at the layer's precision; the scale is part of B."""

    writer: DecoderWriter
    layer: int
    target: str
    adapter: AdapterConfig
    precision: Precision

    def __call__(self, x: ir.Value) -> ir.Value:
        """The delta `[..., N]` of activations `[..., K]`."""
        narrow, wide = self._matrix("A"), self._matrix("B") * np.float32(self.adapter.scale)
        wide = self.writer._ordered(wide, self.target)
        names = [lora_name(self.layer, self.target, matrix, self.adapter.name) for matrix in ("A", "B")]
        inner = linear(self.writer.g, x, names[0], narrow, fitting_block(self.precision, narrow.shape[1]))
        return linear(self.writer.g, inner, names[1], wide, fitting_block(self.precision, wide.shape[1]))

    def _matrix(self, matrix: str) -> FloatArray:
        name = lora_name(self.layer, self.target, matrix, self.adapter.name)
        return np.asarray(self.writer.read(name), np.float32)
