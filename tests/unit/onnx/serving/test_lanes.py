"""Key/value memory: lanes, pools, growth, limits, and which lanes compute together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from phi4.engine.runner import SequenceSpec
from phi4.errors import OutOfMemory
from phi4.onnx.machine.memory import USABLE_SHARE, FreeMemory
from phi4.onnx.serving.lane_ranges import lane_ranges
from phi4.onnx.serving.lanes import (
    MIN_CAPACITY_TOKENS,
    CachedSequence,
    Lanes,
    rounded_capacity,
)
from phi4.testing.tiny import tiny_config

CONFIG = tiny_config().decoder


def spec(tokens: int) -> SequenceSpec:
    return SequenceSpec((), "short", tokens)


def make(count: int, tokens: int = 10, length: int = 5) -> tuple[Lanes, list[CachedSequence]]:
    lanes = Lanes(CONFIG)
    sequences = [lanes[lanes.open(spec(tokens))] for _ in range(count)]
    for sequence in sequences:
        sequence.length = length
    return lanes, sequences


def shapes(sequences: list[CachedSequence]) -> list[tuple[int, tuple[int | None, ...]]]:
    return [(found.first, found.members) for found in lane_ranges(sequences)]


def test_sequences_of_similar_length_share_a_pool_and_others_do_not() -> None:
    lanes = Lanes(CONFIG)
    first, second, long = (lanes[lanes.open(spec(tokens))] for tokens in (65, 256, 257))
    assert first.pool is second.pool
    assert first.lane != second.lane
    assert (first.pool.capacity, long.pool.capacity) == (256, 1024)


def test_capacities_are_few_where_sequences_are_many_and_tight_where_they_are_long() -> None:
    asked = (0, 1, 64, 65, 256, 257, 1024, 1025, 4096, 4097, 8193, 131_072)
    expected = [64, 64, 64, 256, 256, 1024, 1024, 4096, 4096, 8192, 16_384, 131_072]
    assert [rounded_capacity(tokens) for tokens in asked] == expected


def test_capacity_stays_within_the_context_but_holds_what_was_reserved() -> None:
    config = tiny_config(max_positions=100).decoder
    lanes = Lanes(config)
    assert lanes[lanes.open(spec(70))].pool.capacity == 100
    assert lanes[lanes.open(spec(0))].pool.capacity == MIN_CAPACITY_TOKENS


def test_growing_keeps_what_is_cached_and_changes_the_stamp() -> None:
    lanes, (first,) = make(1)
    first.pool.keys[1][first.lane, :, :5] = 3.0
    before, stamp = first.pool.num_lanes, first.pool.stamp
    others = [lanes[lanes.open(spec(10))] for _ in range(4)]
    assert first.pool.num_lanes > before
    assert first.pool.stamp != stamp
    assert (first.pool.keys[1][first.lane, :, :5] == 3.0).all()
    assert (first.pool.keys[1][others[-1].lane] == 0.0).all()


def test_a_closed_lane_is_used_again_lowest_first() -> None:
    lanes = Lanes(CONFIG)
    slots = [lanes.open(spec(10)) for _ in range(4)]
    assert [lanes[slot].lane for slot in slots] == [0, 1, 2, 3]
    lanes.close(slots[2])
    lanes.close(slots[1])
    assert lanes[lanes.open(spec(10))].lane == 1


def test_memory_comes_back_when_the_last_sequence_of_a_pool_ends() -> None:
    lanes = Lanes(CONFIG)
    slots = [lanes.open(spec(1000)) for _ in range(3)]
    assert lanes.allocated_bytes >= 3 * 1024 * lanes.bytes_per_token
    for slot in slots:
        lanes.close(slot)
    assert (lanes.allocated_bytes, lanes.num_open) == (0, 0)


def test_a_prefix_is_copied_between_pools_of_different_capacity() -> None:
    lanes = Lanes(CONFIG)
    source, target = lanes.open(spec(10)), lanes.open(spec(100))
    here, there = lanes[source], lanes[target]
    here.length = 9
    for array in (*here.pool.keys, *here.pool.values):
        array[here.lane] = np.random.default_rng(0).random(array[here.lane].shape)
    lanes.copy_prefix(source, target, 6)
    assert there.length == 6
    for old, new in zip(here.pool.values, there.pool.values, strict=True):
        np.testing.assert_array_equal(new[there.lane, :, :6], old[here.lane, :, :6])
        assert (new[there.lane, :, 6:] == 0).all()


def test_the_limit_refuses_and_says_how_much_was_needed() -> None:
    lane = MIN_CAPACITY_TOKENS * Lanes(CONFIG).bytes_per_token
    lanes = Lanes(CONFIG, max_bytes=3 * lane)
    slots = [lanes.open(spec(10)) for _ in range(3)]  # the third does not double the pool
    with pytest.raises(OutOfMemory, match="shorten"):
        lanes.open(spec(10))
    lanes.close(slots[1])
    lanes.open(spec(10))


LANE = 100
"""Positions each sequence below reserves."""


def limited(free_tokens: Callable[[], float]) -> Lanes:
    """Lanes on a machine with memory for so many positions, the share for caches already taken off."""
    token = Lanes(CONFIG).bytes_per_token
    return Lanes(CONFIG, free=asked(lambda: math.ceil(free_tokens() * token / USABLE_SHARE)))


def asked(ask: Callable[[], int | None]) -> FreeMemory:
    """Asked every time: between two questions lie seconds."""
    return FreeMemory(ask, itertools.count().__next__)


def test_sequences_that_together_exceed_the_free_memory_are_refused_before_any_is_touched() -> None:
    lanes = limited(lambda: 3 * LANE)  # stays so: nothing is written
    slots = [lanes.open(spec(LANE)) for _ in range(3)]
    with pytest.raises(OutOfMemory, match=r"no room for .* MB with .* MB of memory free; short"):
        lanes.open(spec(1))
    lanes.close(slots[1])
    lanes.open(spec(LANE))
    assert lanes.num_open == 3


def test_what_counts_is_the_reservation_and_not_the_capacity_it_is_rounded_up_to() -> None:
    lanes = limited(lambda: 2 * 65)
    assert {lanes[lanes.open(spec(65))].pool.capacity for _ in range(2)} == {256}


def test_memory_others_took_since_is_not_promised_again() -> None:
    free = 10.0 * LANE
    lanes = limited(lambda: free)
    lanes.open(spec(LANE))
    free = 0.5 * LANE
    with pytest.raises(OutOfMemory, match="no room"):
        lanes.open(spec(LANE))
    lanes.open(spec(LANE // 2))


def test_lane_that_was_written_before_needs_no_new_memory() -> None:
    free = 4.0 * LANE
    lanes = limited(lambda: free)
    slots = [lanes.open(spec(LANE)) for _ in range(4)]
    for slot in slots:
        lanes[slot].length = LANE
    free = 0.0
    lanes.close(slots[2])
    assert lanes[lanes.open(spec(LANE))].lane == 2
    lanes[slots[1]].length = LANE - 10  # as after a truncation
    lanes.close(slots[1])
    with pytest.raises(OutOfMemory, match="no room"):
        lanes.open(spec(LANE))
    lanes.open(spec(LANE - 10))


def test_budget_is_measured_anew_once_nothing_is_cached() -> None:
    free = 1.0 * LANE
    lanes = limited(lambda: free)
    slot = lanes.open(spec(LANE))
    free = 5.0 * LANE
    with pytest.raises(OutOfMemory):
        lanes.open(spec(LANE))
    lanes.close(slot)
    for _ in range(5):
        lanes.open(spec(LANE))


def test_what_was_full_a_moment_ago_is_asked_anew_and_what_had_room_is_not() -> None:
    token, answers = Lanes(CONFIG).bytes_per_token, [10 * LANE, 1, 10 * LANE]
    lanes = Lanes(CONFIG, free=FreeMemory(lambda: answers.pop(0) * token, lambda: 0.0))
    lanes.close(lanes.open(spec(LANE)))
    lanes.open(spec(8 * LANE))
    assert len(answers) == 2, "a moment ago there was room"
    with pytest.raises(OutOfMemory):
        lanes.open(spec(2 * LANE))
    lanes.open(spec(LANE))
    assert answers == []


def test_explicit_limit_is_taken_instead_of_what_is_free_and_an_unknown_system_has_none() -> None:
    token = Lanes(CONFIG).bytes_per_token
    Lanes(CONFIG, max_bytes=256 * token, free=asked(lambda: 0)).open(spec(LANE))
    unknown = Lanes(CONFIG, free=asked(lambda: None))
    assert [unknown.open(spec(1 << 14)) for _ in range(3)] and unknown.unclaimed_bytes() is None


def test_unclaimed_is_what_open_sequences_will_not_write() -> None:
    token = Lanes(CONFIG).bytes_per_token
    lanes = Lanes(CONFIG, free=asked(lambda: 1000 * token))
    for length in (0, 30):
        lanes[lanes.open(spec(LANE))].length = length
    assert lanes.unclaimed_bytes() == (1000 - 100 - 70) * token


def test_refused_sequences_leave_nothing_behind() -> None:
    lanes = Lanes(CONFIG, max_bytes=1)
    with pytest.raises(OutOfMemory, match="no room for a sequence of"):
        lanes.open(spec(10))
    assert (lanes.num_open, lanes.allocated_bytes) == (0, 0)


def test_memory_the_machine_does_not_have_is_our_error() -> None:
    with pytest.raises(OutOfMemory, match="no room"):
        Lanes(CONFIG).open(spec(1 << 50))


def test_allocator_that_refuses_to_double_a_pool_is_asked_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes, sequences = make(4)
    sequences[3].pool.keys[0][3, :, :5] = 7.0
    real: Callable[..., Any] = np.zeros

    def zeros(shape: tuple[int, ...], dtype: Any) -> Any:
        if shape[0] > 5:
            raise MemoryError
        return real(shape, dtype)

    monkeypatch.setattr(np, "zeros", zeros)
    fifth = lanes[lanes.open(spec(10))]
    assert (fifth.lane, fifth.pool.num_lanes) == (4, 5)
    assert (fifth.pool.keys[0][3, :, :5] == 7.0).all()


def test_neighbours_compute_together_in_the_order_of_their_lanes() -> None:
    _, s = make(4)
    assert shapes([s[2], s[1], s[3]]) == [(1, (1, 0, 2))]


def test_idle_lanes_come_along_while_they_are_no_more_than_the_rows() -> None:
    _, s = make(8)
    assert shapes([s[0], s[3]]) == [(0, (0, None, None, 1))]
    assert shapes([s[0], s[4]]) == [(0, (0,)), (4, (1,))]
    assert shapes([s[0], s[1], s[5], s[7]]) == [(0, (0, 1, None, None, None, 2, None, 3))]


def test_rows_split_where_most_lanes_lie_idle() -> None:
    _, s = make(16)
    assert shapes([s[0], s[2], s[12], s[13]]) == [(0, (0, None, 1)), (12, (2, 3))]


def test_an_idle_lane_is_written_at_its_own_end_and_a_free_one_at_its_start() -> None:
    lanes = Lanes(CONFIG)
    slots = [lanes.open(spec(10)) for _ in range(4)]
    for length, slot in zip((3, 4, 9, 6), slots, strict=True):
        lanes[slot].length = length
    first, last = lanes[slots[0]], lanes[slots[3]]
    lanes.close(slots[1])
    (found,) = lane_ranges([first, last])
    assert found.lengths == (3, 0, 9, 6)


def test_a_full_idle_lane_is_never_computed() -> None:
    _, s = make(5)
    s[2].length = s[2].pool.capacity
    assert shapes([s[0], s[1], s[3], s[4]]) == [(0, (0, 1)), (3, (2, 3))]
    s[1].length = s[1].pool.capacity
    assert shapes([s[0], s[3]]) == [(0, (0,)), (3, (1,))]


def test_rows_of_different_pools_form_ranges_of_their_own() -> None:
    lanes = Lanes(CONFIG)
    s = [lanes[lanes.open(spec(tokens))] for tokens in (10, 500, 20)]
    assert shapes(s) == [(0, (0, 2)), (0, (1,))]


def paired(sequences: list[CachedSequence]) -> list[tuple[int, tuple[int | None, ...]]]:
    return [(found.first, found.members) for found in lane_ranges(sequences, paired=True)]


def test_pairs_take_an_idle_lane_along_behind_or_before() -> None:
    _, (a, b, c, d) = make(4)
    assert paired([a]) == [(0, (0, None))]
    assert paired([d]) == [(2, (None, 0))]
    assert paired([a, b]) == [(0, (0, 1))]
    assert paired([a, b, c]) == [(0, (0, 1, 2, None))]
    assert paired([b, c, d]) == [(0, (None, 0, 1, 2))]


def test_an_idle_lane_of_a_pair_has_room_or_is_not_taken() -> None:
    _, (a, b, c, d) = make(4)
    c.length = c.pool.capacity
    assert paired([b]) == [(0, (None, 0))]
    a.length = a.pool.capacity
    assert paired([b]) == [(1, (0,))]
    (found,) = lane_ranges([d], paired=True)
    assert found.members == (0,)


def test_no_lane_of_another_pass_is_taken_along() -> None:
    _, sequences = make(8)
    full = sequences[3]
    full.length = full.pool.capacity
    ranges = paired([sequences[place] for place in (1, 2, 4, 6, 7)])
    taken = [first + at for first, members in ranges for at in range(len(members))]
    assert len(set(taken)) == len(taken) and 3 not in taken
