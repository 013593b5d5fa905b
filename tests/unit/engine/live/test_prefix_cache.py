"""Open sequences by content: what is copied, what is kept, what goes first."""

from __future__ import annotations

import numpy as np
import pytest

from phi4.engine.live.prefix_cache import OpenCache, PrefixCache
from phi4.engine.live.prefix_names import PrefixNames, root_name
from phi4.engine.runner import Row, SequenceSpec, StepPlan, TextPiece
from phi4.errors import OutOfMemory
from phi4.testing.scripted import ScriptedRunner, babbling
from phi4.types import ModelInputs

ROOT = root_name("", (), "speech", "short")
BLOCK = 4


def names(ids: list[int], root: bytes = ROOT) -> list[bytes]:
    return PrefixNames(root, ModelInputs(np.array(ids)), BLOCK).names([], len(ids))


class Shelf:
    """A cache on a scripted runner, and what a scheduler does with it."""

    def __init__(self, positions: int = 100, limit: int | None = None, capacity: int | None = None) -> None:
        self.runner = ScriptedRunner(babbling(50), 50, capacity_tokens=capacity)
        self.cache = PrefixCache(self.runner, positions, limit, BLOCK)

    def open(self, ids: list[int], reserve: int = 20, feed: int | None = None) -> OpenCache:
        found = self.cache.open(SequenceSpec((), "short", reserve), names(ids), len(ids) - 1)
        self.feed(found, ids[: len(ids) if feed is None else feed])
        return found

    def feed(self, cache: OpenCache, ids: list[int]) -> None:
        new = ids[cache.length :]
        if new:
            self.runner.step(StepPlan((Row(cache.slot, (TextPiece(np.array(new)),)),)))
            cache.length = len(ids)

    def leave(self, ids: list[int], reserve: int = 20) -> None:
        self.cache.leave(self.open(ids, reserve), names(ids))


PROMPT = list(range(10))


def test_a_new_sequence_begins_with_what_a_running_one_holds() -> None:
    shelf = Shelf()
    shelf.open(PROMPT)
    second = shelf.open([*PROMPT[:8], 40, 41], feed=0)
    assert (second.length, second.copied) == (8, 8)
    assert shelf.runner.length(second.slot) == 8
    assert (shelf.cache.queries, shelf.cache.hits) == (9 + 9, 8)


def test_at_least_one_position_is_left_to_feed() -> None:
    shelf = Shelf()
    shelf.leave(PROMPT[:8])
    assert shelf.open(PROMPT[:8], feed=0).length == 7


def test_what_is_being_computed_is_promised() -> None:
    shelf = Shelf()
    first = shelf.open(PROMPT, feed=0)
    found = shelf.cache.match(names(PROMPT), 9)
    assert (found.source, found.length, found.promised) == (None, 0, 8)
    shelf.feed(first, PROMPT[:5])
    found = shelf.cache.match(names(PROMPT), 9)
    assert (found.source, found.length, found.promised) == (first, 5, 8)
    shelf.cache.close(first)
    assert shelf.cache.match(names(PROMPT), 9).promised == 0


def test_an_ended_sequence_is_kept_by_whole_blocks_and_found() -> None:
    shelf = Shelf()
    shelf.leave(PROMPT)
    assert (shelf.cache.num_kept, shelf.runner.num_open) == (1, 1)
    again = shelf.open([*PROMPT, 30], feed=0)
    assert again.length == 8


def test_other_tenants_find_nothing() -> None:
    shelf = Shelf()
    shelf.leave(PROMPT)
    assert shelf.cache.match(names(PROMPT, root_name("b", (), "speech", "short")), 9).length == 0


def test_nothing_is_kept_where_nothing_may_be() -> None:
    shelf = Shelf(positions=0)
    shelf.leave(PROMPT)
    assert (shelf.runner.num_open, shelf.cache.reserved) == (0, 0)
    shelf = Shelf()
    shelf.leave(PROMPT[:3])
    assert shelf.runner.num_open == 0, "no whole block"


def test_a_kept_sequence_reserves_little_more_than_it_holds() -> None:
    shelf = Shelf()
    shelf.leave(PROMPT, reserve=90)
    assert shelf.cache.kept_positions == shelf.cache.reserved == 8
    shelf.leave([20, *PROMPT], reserve=12)
    assert shelf.cache.kept_positions == 8 + 12
    assert [shelf.runner.length(slot) for slot in shelf.cache._kept] == [8, 8]
    assert shelf.open([20, *PROMPT], feed=0).length == 8


def test_the_longest_unused_goes_first() -> None:
    shelf = Shelf(positions=24)
    for first in (20, 30, 40):
        shelf.leave([first, *PROMPT[:7]], reserve=8)
    shelf.cache.close(shelf.open([20, *PROMPT[:7]]))  # used again
    shelf.leave([45, *PROMPT[:7]], reserve=8)
    found = {first: shelf.cache.match(names([first, *PROMPT[:7]]), 7).length for first in (20, 30, 40, 45)}
    assert found == {20: 7, 30: 0, 40: 7, 45: 7}
    assert shelf.cache.kept_positions == 24


def test_a_longer_one_takes_the_place_of_its_beginning_and_a_shorter_one_is_not_kept_twice() -> None:
    shelf = Shelf()
    shelf.leave(PROMPT[:5])
    shelf.leave(PROMPT)
    assert (shelf.cache.num_kept, shelf.runner.num_open) == (1, 1)
    shelf.leave(PROMPT[:6])
    shelf.leave([*PROMPT[:8], 44])
    assert (shelf.cache.num_kept, shelf.runner.num_open) == (1, 1)
    assert shelf.open([*PROMPT, 9], feed=0).length == 8


def test_two_that_go_on_differently_are_both_kept() -> None:
    shelf = Shelf()
    shelf.leave([*PROMPT[:4], 20, 21, 22, 23])
    shelf.leave([*PROMPT[:4], 30, 31, 32, 33])
    assert shelf.cache.num_kept == 2


def test_the_copy_of_a_closed_source_lives_on() -> None:
    shelf = Shelf()
    shelf.leave(PROMPT)
    copy = shelf.open([*PROMPT[:8], 40], feed=0)
    assert shelf.cache.evict_all() and not shelf.cache.evict()
    assert shelf.runner.length(copy.slot) == 8
    third = shelf.open([*PROMPT[:8], 41], feed=0)
    assert third.length == 8, "the copy is a source itself"


def test_the_limit_counts_all_sequences_and_says_so() -> None:
    shelf = Shelf(limit=50)
    shelf.leave(PROMPT, reserve=16)
    first = shelf.open([20, 21], reserve=20)
    with pytest.raises(OutOfMemory, match="of 15 positions beside 36 of 50; shorten"):
        shelf.open([30, 31], reserve=15)
    assert shelf.cache.evict()
    shelf.open([30, 31], reserve=15)
    shelf.cache.close(first)
    assert shelf.cache.reserved == 15


def test_without_room_to_move_a_sequence_is_not_kept() -> None:
    shelf = Shelf(capacity=40)
    shelf.leave(PROMPT, reserve=38)
    assert (shelf.cache.num_kept, shelf.runner.num_open, shelf.cache.reserved) == (0, 0, 0)


def test_names_of_closed_sequences_take_no_memory() -> None:
    shelf = Shelf()
    for first in range(40):
        shelf.leave([first, *PROMPT])
    shelf.cache.evict_all()
    assert not shelf.cache._holders and shelf.runner.num_open == 0
