"""Key/value memory: one contiguous lane a sequence, lanes of equal capacity stacked in a pool.

Rows whose lanes lie side by side are read as one strided view, without copying, which is the usual
case while a batch decodes. Capacities are rounded up to powers of two so that sequences of similar
length share a pool; a pool grows by doubling its lanes. Memory starts as zeros, since masked keys are
still multiplied (by zero) and must be finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from phi4.configs import DecoderConfig
from phi4.engine.runner import SequenceSpec, Slot
from phi4.errors import OutOfMemory
from phi4.torch_runner.memory import is_out_of_memory

MIN_CAPACITY_TOKENS = 64


@dataclass
class Pool:
    """Lanes of one capacity.

    Attributes:
        capacity: Positions a lane may hold.
        keys: Per layer `[lanes, K, capacity, H]`.
        values: The same.
        free: Lanes nobody uses, ascending.
    """

    capacity: int
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    free: list[int] = field(default_factory=list)

    @property
    def num_lanes(self) -> int:
        """Lanes there is memory for."""
        return self.keys[0].shape[0] if self.keys else 0

    @property
    def is_empty(self) -> bool:
        """Whether no sequence uses it."""
        return len(self.free) == self.num_lanes


@dataclass
class CachedSequence:
    """Where an open sequence lives and how far it is filled."""

    spec: SequenceSpec
    pool: Pool
    lane: int
    length: int = 0


class Cache:
    """All open sequences of a runner.

    Args:
        config: Sizes of the decoder.
        device: Where the memory is.
        dtype: Type of keys and values.
        max_bytes: Refuse to grow beyond this; None = until the device has no more.
    """

    def __init__(
        self, config: DecoderConfig, device: torch.device, dtype: torch.dtype, max_bytes: int | None = None
    ) -> None:
        self._config = config
        self._device = device
        self._dtype = dtype
        self._max_bytes = max_bytes
        self._pools: dict[int, Pool] = {}
        self._open: dict[Slot, CachedSequence] = {}
        self._num_opened = 0
        self.bytes_per_token = 2 * config.num_hidden_layers * config.kv_dim * dtype.itemsize

    def __getitem__(self, slot: Slot) -> CachedSequence:
        assert slot in self._open, f"slot {slot} is not open"
        return self._open[slot]

    @property
    def num_open(self) -> int:
        """Open sequences."""
        return len(self._open)

    @property
    def allocated_bytes(self) -> int:
        """Memory of all pools."""
        return sum(pool.num_lanes * pool.capacity for pool in self._pools.values()) * self.bytes_per_token

    def open(self, spec: SequenceSpec) -> Slot:
        """Give a sequence a lane.

        Raises:
            OutOfMemory: No room for `spec.reserved_tokens`.
        """
        capacity = max(MIN_CAPACITY_TOKENS, 1 << (spec.reserved_tokens - 1).bit_length())
        capacity = min(capacity, max(self._config.max_position_embeddings, spec.reserved_tokens))
        pool = self._pools.setdefault(capacity, Pool(capacity))
        if not pool.free:
            self._grow(pool)
        slot = Slot(self._num_opened)
        self._num_opened += 1
        self._open[slot] = CachedSequence(spec, pool, pool.free.pop(0))
        return slot

    def close(self, slot: Slot) -> None:
        """Take the lane back; a pool without sequences is dropped."""
        sequence = self[slot]
        del self._open[slot]
        pool = sequence.pool
        pool.free = sorted([*pool.free, sequence.lane])
        if pool.is_empty:
            del self._pools[pool.capacity]

    def copy_prefix(self, source: Slot, target: Slot, length: int) -> None:
        """Copy the first `length` positions into an empty sequence."""
        here, there = self[source], self[target]
        assert there.length == 0 and length <= min(here.length, there.pool.capacity)
        assert (here.spec.adapters, here.spec.regime) == (there.spec.adapters, there.spec.regime)
        for layer in range(self._config.num_hidden_layers):
            for old, new in ((here.pool.keys, there.pool.keys), (here.pool.values, there.pool.values)):
                new[layer][there.lane, :, :length] = old[layer][here.lane, :, :length]
        there.length = length

    def _grow(self, pool: Pool) -> None:
        """Double the lanes; where there is no room for that, take what there is room for."""
        wanted = max(1, pool.num_lanes)
        lane_bytes = pool.capacity * self.bytes_per_token
        while wanted:
            if not self._over(wanted * lane_bytes) and self._extended(pool, wanted):
                return
            wanted //= 2
        raise self._no_room(lane_bytes)

    def _extended(self, pool: Pool, lanes: int) -> bool:
        try:
            self._extend(pool, lanes)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    def _over(self, more_bytes: int) -> bool:
        return self._max_bytes is not None and self.allocated_bytes + more_bytes > self._max_bytes

    def _extend(self, pool: Pool, lanes: int) -> None:
        config = self._config
        shape = (lanes, config.num_key_value_heads, pool.capacity, config.head_dim)
        first = pool.num_lanes

        def longer(tensors: Sequence[Tensor]) -> list[Tensor]:
            fresh = (
                torch.zeros(shape, dtype=self._dtype, device=self._device)
                for _ in range(config.num_hidden_layers)
            )
            return (
                [torch.cat([old, new]) for old, new in zip(tensors, fresh, strict=True)]
                if tensors
                else list(fresh)
            )

        keys, values = longer(pool.keys), longer(pool.values)  # both, or neither when memory runs out
        pool.keys, pool.values = keys, values
        pool.free = sorted([*pool.free, *range(first, first + lanes)])

    def _no_room(self, lane_bytes: int) -> OutOfMemory:
        return OutOfMemory(
            f"no room for a sequence of {lane_bytes / 1e6:.1f} MB beside {self.allocated_bytes / 1e6:.1f} MB "
            f"of caches on {self._device}; shorten the prompt or the answer, or run fewer requests at once"
        )
