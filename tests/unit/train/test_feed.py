"""The feed gives the same batches in the same order whatever prepares them, and reports failures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest

from phi4.data.loader import WorkerFailed
from phi4.train.counting import CountingSource
from phi4.train.feed import Ahead, Feed
from phi4.train.recipes import smoke
from phi4.train.settings import Recipe

RECIPE = smoke()


def take(recipe: Recipe, start: int, count: int, workers: int) -> list[tuple[str, bytes]]:
    feed = Feed(CountingSource(), recipe, 0, start, workers)
    try:
        return [(spec.task.task, arrays.input_ids.tobytes()) for spec, arrays in islice(feed, count)]
    finally:
        feed.close()


def test_order_does_not_depend_on_the_number_of_workers() -> None:
    assert take(RECIPE, 0, 12, 0) == take(RECIPE, 0, 12, 1) == take(RECIPE, 0, 12, 3)


@pytest.mark.parametrize("replay", [1, 3])
def test_feed_started_in_the_middle_goes_on_as_if_never_stopped(replay: int) -> None:
    recipe = replace(RECIPE, replay=replay, replay_delay=4)
    assert take(recipe, 0, 40, 0)[23:] == take(recipe, 23, 17, 0) == take(recipe, 23, 17, 2)


def test_ring_holds_no_more_than_replay_needs() -> None:
    feed = Feed(CountingSource(), replace(RECIPE, replay=3, replay_delay=4), 0)
    sizes = [len(feed._ring) for _ in islice(feed, 200)]
    assert max(sizes) <= 2 * 4 + 2


def test_failure_of_a_worker_reaches_the_trainer() -> None:
    feed = Feed(CountingSource(vocab_size=0), RECIPE, 0, workers=1)
    with pytest.raises(WorkerFailed, match="item 0"):
        next(feed)
    feed.close()


def test_ahead_keeps_the_order_and_passes_errors_on() -> None:
    def numbers() -> Iterator[object]:
        yield from range(5)
        raise KeyError("end")

    ahead = Ahead(numbers(), depth=2)
    assert [next(ahead) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError):
        next(ahead)
    ahead.close()


def test_ahead_ends_when_its_iterator_does() -> None:
    ahead = Ahead(iter(range(3)), depth=2)
    assert list(ahead) == [0, 1, 2]
    ahead.close()


def test_ahead_can_be_closed_while_items_remain() -> None:
    ahead = Ahead(iter(range(10**9)), depth=2)
    assert next(ahead) == 0
    ahead.close()
    assert not ahead._thread.is_alive()
