"""Cache memory: lanes, pools, growth and limits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from phi4.engine.runner import SequenceSpec
from phi4.errors import OutOfMemory
from phi4.testing.tiny import tiny_config
from phi4.torch_runner.attend import group_rows
from phi4.torch_runner.cache import MIN_CAPACITY_TOKENS, Cache

CONFIG = tiny_config().decoder
CPU = torch.device("cpu")


def make(max_bytes: int | None = None) -> Cache:
    return Cache(CONFIG, CPU, torch.float32, max_bytes)


def spec(tokens: int) -> SequenceSpec:
    return SequenceSpec((), "short", tokens)


def test_sequences_of_similar_length_share_a_pool_and_others_do_not() -> None:
    cache = make()
    first, second, long = (cache.open(spec(tokens)) for tokens in (65, 128, 129))
    assert cache[first].pool is cache[second].pool
    assert cache[first].lane != cache[second].lane
    assert (cache[first].pool.capacity, cache[long].pool.capacity) == (128, 256)


def test_growing_keeps_what_is_cached() -> None:
    cache = make()
    first = cache[cache.open(spec(10))]
    first.pool.keys[1][first.lane].fill_(3.0)
    lanes = first.pool.num_lanes
    others = [cache.open(spec(10)) for _ in range(4)]
    assert first.pool.num_lanes > lanes
    assert bool((first.pool.keys[1][first.lane] == 3.0).all())
    assert bool((first.pool.keys[1][cache[others[-1]].lane] == 0.0).all())


def test_a_closed_lane_is_used_again_lowest_first() -> None:
    cache = make()
    slots = [cache.open(spec(10)) for _ in range(4)]
    lanes = [cache[slot].lane for slot in slots]
    assert lanes == [0, 1, 2, 3]
    cache.close(slots[2])
    cache.close(slots[1])
    assert cache[cache.open(spec(10))].lane == 1


def test_memory_comes_back_when_the_last_sequence_of_a_pool_ends() -> None:
    cache = make()
    slots = [cache.open(spec(1000)) for _ in range(3)]
    assert cache.allocated_bytes >= 3 * 1024 * cache.bytes_per_token
    for slot in slots:
        cache.close(slot)
    assert cache.allocated_bytes == 0


def test_the_limit_refuses_and_says_how_much_was_needed() -> None:
    lane = MIN_CAPACITY_TOKENS * make().bytes_per_token
    cache = make(max_bytes=3 * lane)
    slots = [cache.open(spec(10)) for _ in range(3)]  # the third does not double the pool
    with pytest.raises(OutOfMemory, match="shorten"):
        cache.open(spec(10))
    cache.close(slots[1])
    cache.open(spec(10))


def test_allocator_that_refuses_to_double_a_pool_is_asked_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, real = make(), torch.zeros
    slots = [cache.open(spec(10)) for _ in range(4)]
    cache[slots[3]].pool.keys[0][3].fill_(5.0)

    def zeros(shape: tuple[int, ...], **options: Any) -> torch.Tensor:
        if shape[0] > 1:
            raise torch.OutOfMemoryError("device full")
        return real(shape, **options)

    monkeypatch.setattr(torch, "zeros", zeros)
    fifth = cache[cache.open(spec(10))]
    assert (fifth.lane, fifth.pool.num_lanes) == (4, 5)
    assert bool((fifth.pool.keys[0][3] == 5.0).all())


def test_memory_the_machine_does_not_have_is_our_error() -> None:
    with pytest.raises(OutOfMemory, match="no room"):
        make().open(spec(1 << 44))  # more than an address space holds


def test_neighbouring_lanes_are_read_without_copying_and_others_by_index() -> None:
    cache = make()
    sequences = [cache[cache.open(spec(10))] for _ in range(4)]
    (near,) = group_rows(sequences[1:3], [1, 1], CPU)
    assert near.lanes == slice(1, 3)
    (far,) = group_rows([sequences[0], sequences[2]], [1, 1], CPU)
    assert isinstance(far.lanes, torch.Tensor)


def test_a_mask_shows_each_row_its_own_past_only() -> None:
    cache = make()
    sequences = [cache[cache.open(spec(10))] for _ in range(2)]
    sequences[1].length = 3
    (group,) = group_rows(sequences, [2, 1], CPU)
    assert group.mask is not None
    assert group.mask[:, 0].int().tolist() == [
        [[1, 0, 0, 0], [1, 1, 0, 0]],
        [[1, 1, 1, 1], [1, 1, 1, 1]],
    ]
    assert group.target[1].tolist() == [0, 1, 3]


def test_rows_of_different_pools_form_groups() -> None:
    cache = make()
    sequences = [cache[cache.open(spec(tokens))] for tokens in (10, 500, 20)]
    groups = group_rows(sequences, [1, 1, 1], CPU)
    assert [None if group.rows is None else group.rows.tolist() for group in groups] == [[0, 2], [1]]
