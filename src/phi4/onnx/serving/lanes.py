"""Key/value memory: one contiguous lane a sequence, lanes of equal capacity stacked in a pool.

GroupQueryAttention writes into the memory it reads, and takes rows that lie side by side as one array:
a pass gets a range of lanes of one pool, without any copy. Few capacities exist, so that sequences share a
pool and a pass; a pool grows by doubling its lanes. Memory comes from the system page by page as it is
written, so lanes that wait cost nothing, nor do positions nobody reaches. For the same reason allocating
hardly ever fails: whether what a sequence reserves fits is asked of the system before it is opened.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from phi4.configs.decoder import DecoderConfig
from phi4.engine.runner import SequenceSpec, Slot
from phi4.errors import OutOfMemory
from phi4.onnx.machine.memory import USABLE_SHARE, FreeMemory, free_bytes
from phi4.onnx.package.description import CacheKind, cache_bytes_per_token
from phi4.shapes import AnyArray

MIN_CAPACITY_TOKENS = 64
_FINE_FROM_TOKENS = 4096
CACHE_DTYPES: dict[CacheKind, np.dtype[Any]] = {"fp32": np.dtype(np.float32), "fp16": np.dtype(np.float16)}


@dataclass(eq=False)
class Pool:
    """Lanes of one capacity.

    Attributes:
        capacity: Positions a lane may hold.
        keys: Per layer `[lanes, K, capacity, H]`, float32 or float16.
        values: The same.
        used: Lane -> its sequence; all others are free.
        written: Free lane -> positions that were written there, whose memory is taken already.
        stamp: Changes whenever the arrays do; no two pools of a runner ever have the same.
    """

    capacity: int
    keys: list[AnyArray] = field(default_factory=list)
    values: list[AnyArray] = field(default_factory=list)
    used: dict[int, CachedSequence] = field(default_factory=dict)
    written: dict[int, int] = field(default_factory=dict)
    stamp: int = 0

    @property
    def num_lanes(self) -> int:
        """Lanes there is memory for."""
        return len(self.keys[0]) if self.keys else 0

    def free_lane(self) -> int | None:
        """The lowest lane nobody uses: sequences stay close together."""
        return next((lane for lane in range(self.num_lanes) if lane not in self.used), None)


@dataclass(eq=False)
class CachedSequence:
    """Where an open sequence lives and how far it is filled."""

    spec: SequenceSpec
    pool: Pool
    lane: int
    length: int = 0


class Lanes:
    """All open sequences of a runner.

    Args:
        config: Sizes of the decoder.
        max_bytes: Refuse to grow beyond this; None = what sequences reserve has to fit into free memory.
        cache: How keys and values are kept.
        free: Tells how many bytes are free.
    """

    def __init__(
        self,
        config: DecoderConfig,
        max_bytes: int | None = None,
        cache: CacheKind = "fp32",
        free: FreeMemory | None = None,
    ) -> None:
        self._config = config
        self._max_bytes = max_bytes
        self._free = free or FreeMemory(free_bytes)
        self._budget_bytes = math.inf  # for all caches; measured when there are none
        self._pools: dict[int, Pool] = {}
        self._open: dict[Slot, CachedSequence] = {}
        self._num_opened = 0
        self._num_stamps = 0
        self._dtype = CACHE_DTYPES[cache]
        self.bytes_per_token = cache_bytes_per_token(config, cache)

    def __getitem__(self, slot: Slot) -> CachedSequence:
        assert slot in self._open, f"slot {slot} is not open"
        return self._open[slot]

    @property
    def num_open(self) -> int:
        """Open sequences."""
        return len(self._open)

    @property
    def allocated_bytes(self) -> int:
        """Memory of all pools, whether written yet or not."""
        return sum(pool.num_lanes * pool.capacity for pool in self._pools.values()) * self.bytes_per_token

    @property
    def reserved_bytes(self) -> int:
        """What open sequences may write at most."""
        return sum(sequence.spec.reserved_tokens for sequence in self._open.values()) * self.bytes_per_token

    def unclaimed_bytes(self) -> int | None:
        """Free memory that no open sequence is going to write; None = unknown."""
        free = self._free.now()
        waiting = (
            max(0, sequence.spec.reserved_tokens - sequence.length) for sequence in self._open.values()
        )
        return None if free is None else free - sum(waiting) * self.bytes_per_token

    def open(self, spec: SequenceSpec) -> Slot:
        """Give a sequence a lane.

        Raises:
            OutOfMemory: No room for `spec.reserved_tokens`.
        """
        capacity = min(
            rounded_capacity(spec.reserved_tokens),
            max(self._config.max_position_embeddings, spec.reserved_tokens),
        )
        pool = self._pools.get(capacity) or Pool(capacity)
        lane = pool.free_lane()
        if self._max_bytes is None:
            self._check_room(spec.reserved_tokens, 0 if lane is None else pool.written.get(lane, 0))
        if lane is None:
            lane = pool.num_lanes
            self._grow(pool)
        self._pools[capacity] = pool
        slot = Slot(self._num_opened)
        self._num_opened += 1
        self._open[slot] = pool.used[lane] = CachedSequence(spec, pool, lane)
        return slot

    def close(self, slot: Slot) -> None:
        """Take the lane back; a pool without sequences is dropped."""
        sequence = self[slot]
        pool, lane = sequence.pool, sequence.lane
        del self._open[slot], pool.used[lane]
        pool.written[lane] = max(sequence.length, pool.written.get(lane, 0))
        if not pool.used:
            del self._pools[pool.capacity]

    def copy_prefix(self, source: Slot, target: Slot, length: int) -> None:
        """Copy the first `length` positions into an empty sequence."""
        here, there = self[source], self[target]
        assert there.length == 0 and length <= min(here.length, there.pool.capacity)
        assert (here.spec.adapters, here.spec.regime) == (there.spec.adapters, there.spec.regime)
        for old, new in zip(_arrays(here.pool), _arrays(there.pool), strict=True):
            new[there.lane, :, :length] = old[here.lane, :, :length]
        there.length = length

    def _check_room(self, tokens: int, written: int) -> None:
        """Refuse a sequence that would not fit, before any of its memory is touched.

        All reservations stay within what was free before there were caches, and the new one within what is
        free now: other programs, encoders and the form for prompts may have taken memory in between.

        Args:
            tokens: Positions it reserves.
            written: How many of them have their memory already, from an earlier sequence.
        """
        needed, fresh = (count * self.bytes_per_token for count in (tokens, tokens - written))
        free = self._free.recent()  # what was right a moment ago suffices to let it in
        if not self._fits(needed, fresh, free):
            free = self._free.now()
            if free is not None and not self._fits(needed, fresh, free):
                raise self._no_room(needed, f"with {free / 1e6:.1f} MB of memory free")

    def _fits(self, needed: int, fresh: int, free: int | None) -> bool:
        if free is None:
            return True
        if not self._pools:
            self._budget_bytes = USABLE_SHARE * free
        return self.reserved_bytes + needed <= self._budget_bytes and fresh <= USABLE_SHARE * free

    def _no_room(self, nbytes: int, beside: str) -> OutOfMemory:
        return OutOfMemory(
            f"no room for a sequence of {nbytes / 1e6:.1f} MB {beside}; shorten the prompt or the answer, or "
            "run fewer requests at once"
        )

    def _grow(self, pool: Pool) -> None:
        """Double the lanes; where there is no room for that, take what there is room for."""
        wanted = max(2, pool.num_lanes)  # an even number, see `lane_ranges`
        lane_bytes = pool.capacity * self.bytes_per_token
        while wanted:
            if not self._over(wanted * lane_bytes) and self._extended(pool, wanted):
                return
            wanted //= 2
        raise self._no_room(lane_bytes, f"beside {self.allocated_bytes / 1e6:.1f} MB of caches")

    def _over(self, more_bytes: int) -> bool:
        return self._max_bytes is not None and self.allocated_bytes + more_bytes > self._max_bytes

    def _extended(self, pool: Pool, more: int) -> bool:
        config = self._config
        shape = (pool.num_lanes + more, config.num_key_value_heads, pool.capacity, config.head_dim)
        try:
            fresh = [np.zeros(shape, self._dtype) for _ in range(2 * config.num_hidden_layers)]
        except MemoryError:
            return False
        held = _arrays(pool)
        pool.keys, pool.values = fresh[: config.num_hidden_layers], fresh[config.num_hidden_layers :]
        for new in fresh[: len(held)]:  # none where the pool is new
            old = held.pop(0)  # given back once it is copied: never is the whole pool there twice
            for lane, sequence in pool.used.items():
                new[lane, :, : sequence.length] = old[lane, :, : sequence.length]
        self._num_stamps += 1
        pool.stamp = self._num_stamps
        return True


def rounded_capacity(tokens: int) -> int:
    """Positions of the lanes a sequence of so many goes to.

    Powers of four: two capacities in a step are two passes, each of which reads all weights. Long sequences
    are few and large, and no lane is more than a few gigabytes of address space: for them powers of two.
    """
    bits = max(tokens, MIN_CAPACITY_TOKENS) - 1
    power = bits.bit_length()
    return 1 << (power if tokens > _FINE_FROM_TOKENS else power + power % 2)


def _arrays(pool: Pool) -> list[AnyArray]:
    return [*pool.keys, *pool.values]
