"""The graphs of the text part as functions: a pass of the decoder, and the head.

A pass takes one sequence with any number of new positions, or lanes side by side with one new position
each: GroupQueryAttention has no other forms. Keys and values are written into the lanes themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from phi4.configs.rope import Regime
from phi4.onnx.package import OnnxPackage
from phi4.onnx.package.parts import plain_form
from phi4.onnx.serving.binding import BoundSession, Shape
from phi4.onnx.serving.lanes import CACHE_DTYPES, Pool
from phi4.onnx.serving.session import SessionChoice
from phi4.onnx.serving.tables import RotaryTables
from phi4.onnx.serving.user_adapter import slot_shapes
from phi4.shapes import AnyArray, FloatArray, IntArray


@dataclass(frozen=True)
class PassRows:
    """What one pass computes: B lanes, T new positions each; B or T is 1.

    Attributes:
        pool: Pool of the lanes.
        first: The first of the B lanes.
        hidden: `[B, T, D]` embedded new positions.
        lengths: `[B]` positions each lane holds already.
        regimes: `[B]` LongRoPE regimes.
        adapters: Adapters of all rows.
        wanted: `[R]` positions whose hidden states are wanted, as row * T + t.
    """

    pool: Pool
    first: int
    hidden: FloatArray
    lengths: Sequence[int]
    regimes: Sequence[Regime]
    adapters: tuple[str, ...]
    wanted: IntArray


class DecoderGraph:
    """The decoder in one of its forms.

    Args:
        package: The package.
        name: "decoder" or "prefill"; without an adapter of the user's own its plain form, where there is one.
        choice: Provider and threads.
        slots: Name of each of the user's own adapters -> what is bound to the slot for it, see `slot_arrays`;
            "" = what is bound when there is none. Empty = the graph has no slot.

    Raises:
        InvalidArtifact: The graph cannot be run or does not belong to the package.
        OutOfMemory: Its weights do not fit.
    """

    def __init__(
        self,
        package: OnnxPackage,
        name: str,
        choice: SessionChoice,
        slots: Mapping[str, Mapping[str, FloatArray]],
    ) -> None:
        self._layers = package.config.decoder.num_hidden_layers
        plain = not any(slots) and name in package.plain_graphs
        self._graph = BoundSession(package.graph(plain_form(name) if plain else name), choice)
        self._graph.check(_inputs(package, package.user_slot and not plain), _outputs(package))
        for name in _cache(package, "past"):
            self._graph.check_type(name, CACHE_DTYPES[package.cache])
        self._flags = {adapter: _flag(self._graph, f"adapter.{adapter}") for adapter in package.adapters}
        self._slots = slots
        self._user_flag = _flag(self._graph, "user") if package.user_slot and not plain else None
        self._bound: str | None = None
        if slots:
            self._bind_slot(next(iter(slots)))
        self._lanes: tuple[int, int, int] | None = None

    def run(self, rows: PassRows, tables: RotaryTables) -> FloatArray:
        """Append the rows' positions to their lanes; returns `[R, D]` hidden states, at least one row.

        Raises:
            OutOfMemory: Work space ran out.
        """
        count = rows.hidden.shape[1]
        starts = np.asarray(rows.lengths, np.int64)
        total = int(starts.max()) + count
        tables.grow(total)
        positions = [
            tables.positions(start, count, regime)
            for start, regime in zip(rows.lengths, rows.regimes, strict=True)
        ]
        wanted = rows.wanted if len(rows.wanted) else np.zeros(1, np.int64)
        picked = np.empty((len(wanted), rows.hidden.shape[2]), np.float32)
        for adapter, flag in self._flags.items():
            flag[...] = adapter in rows.adapters
        self._choose_own(rows.adapters)
        inputs: dict[str, AnyArray] = {
            "hidden": rows.hidden,
            "positions": np.stack(positions),
            "lengths": (starts + (count - 1)).astype(np.int32),
            "total": np.array(total, np.int32),
            "cos": tables.cos,
            "sin": tables.sin,
            "rows": wanted,
        }
        for name, array in inputs.items():
            self._graph.put(name, array)
        self._graph.take("picked", picked)
        self._bind_lanes(rows.pool, rows.first, len(rows.lengths))
        self._graph.run()
        return picked

    def _choose_own(self, adapters: Sequence[str]) -> None:
        """Turn the user's slot on or off; what is bound changes only where rows name another adapter."""
        own = next((name for name in adapters if name in self._slots), None)
        if self._user_flag is not None:
            self._user_flag[...] = own is not None
        if own is not None and own != self._bound:
            self._bind_slot(own)

    def _bind_slot(self, name: str) -> None:
        for place, array in self._slots[name].items():
            self._graph.put(place, array)
        self._bound = name

    def _bind_lanes(self, pool: Pool, first: int, count: int) -> None:
        """Bind a range of lanes as both past and present, unless it is the one of the last pass."""
        if self._lanes == (pool.stamp, first, count):
            return
        for layer in range(self._layers):
            for kind, arrays in (("key", pool.keys), ("value", pool.values)):
                lanes = arrays[layer][first : first + count]
                # Lent, not held: a pool that is dropped gives its memory back at once.
                self._graph.lend(f"past_{kind}.{layer}", lanes, written=f"present_{kind}.{layer}")
        self._lanes = (pool.stamp, first, count)


class HeadGraph:
    """Hidden states to logits.

    Args:
        package: The package.
        choice: Provider and threads.
        paired: Compute rows in pairs, see `lane_ranges`.

    Raises:
        InvalidArtifact: The graph cannot be run or does not belong to the package.
        OutOfMemory: Its weights do not fit.
    """

    def __init__(self, package: OnnxPackage, choice: SessionChoice, *, paired: bool = False) -> None:
        decoder = package.config.decoder
        self._vocab = decoder.vocab_size
        self._paired = paired
        self._graph = BoundSession(package.graph("head"), choice.step_by_step(package.loaded_bytes("head")))
        self._graph.check({"picked": (None, decoder.hidden_size)}, {"logits": (None, decoder.vocab_size)})

    def logits(self, picked: FloatArray) -> FloatArray:
        """`[R, D]` to `[R, V]` float32.

        Raises:
            OutOfMemory: Work space ran out.
        """
        count = len(picked)
        if self._paired and count % 2:
            picked = np.concatenate((picked, np.zeros_like(picked[:1])))
        logits = np.empty((len(picked), self._vocab), np.float32)
        self._graph.put("picked", np.ascontiguousarray(picked))
        self._graph.take("logits", logits)
        self._graph.run()
        return logits[:count]


def _flag(graph: BoundSession, name: str) -> AnyArray:
    """A scalar bound to an input; written in place before a pass."""
    flag = np.zeros((), np.bool_)
    graph.put(name, flag)
    return flag


def _inputs(package: OnnxPackage, slot: bool) -> dict[str, Shape]:
    decoder, half = package.config.decoder, package.rotary_half
    shapes: dict[str, Shape] = {
        "hidden": (None, None, decoder.hidden_size),
        "positions": (None, None),
        "lengths": (None,),
        "total": (),
        "cos": (None, half),
        "sin": (None, half),
        "rows": (None,),
    }
    shapes |= {f"adapter.{name}": () for name in package.adapters}
    if slot:
        shapes |= {"user": (), **slot_shapes(decoder)}
    return shapes | _cache(package, "past")


def _outputs(package: OnnxPackage) -> dict[str, Shape]:
    return {"picked": (None, package.config.decoder.hidden_size), **_cache(package, "present")}


def _cache(package: OnnxPackage, when: str) -> dict[str, Shape]:
    decoder = package.config.decoder
    shape = (None, decoder.num_key_value_heads, None, decoder.head_dim)
    names = [f"{when}_{kind}.{i}" for i in range(decoder.num_hidden_layers) for kind in ("key", "value")]
    return dict.fromkeys(names, shape)
