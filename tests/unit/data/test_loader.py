"""The loader keeps its order for any number of workers, goes on anywhere, and ends what it started."""

from __future__ import annotations

import multiprocessing
import os
from itertools import islice

import pytest

from phi4.data.loader import Loader, WorkerFailed
from phi4.errors import InvalidRequest


def square(index: int) -> int:
    return index * index


def fails_at_five(index: int) -> int:
    if index == 5:
        raise ValueError("five is not for us")
    return index


def dies_at_two(index: int) -> int:
    if index == 2:
        os._exit(1)
    return index


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_items_come_in_order_whatever_the_workers(workers: int) -> None:
    with Loader(square, workers=workers) as loader:
        assert list(islice(loader, 20)) == [i * i for i in range(20)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_where_another_stopped(workers: int) -> None:
    with Loader(square, workers=workers) as first:
        done = list(islice(first, 7))
        place = first.next_index
    with Loader(square, start=place, workers=workers) as second:
        done += list(islice(second, 6))
    assert place == 7 and done == [i * i for i in range(13)]


def test_a_failing_item_reaches_the_caller_with_its_index() -> None:
    with Loader(fails_at_five, workers=2) as loader:
        assert list(islice(loader, 5)) == [0, 1, 2, 3, 4]
        with pytest.raises(WorkerFailed, match=r"item 5 could not be made:(.|\n)*five is not for us"):
            next(loader)


def test_after_a_failed_item_no_later_one_takes_its_place() -> None:
    with Loader(fails_at_five, workers=2) as loader:
        assert list(islice(loader, 5)) == [0, 1, 2, 3, 4]
        for _ in range(3):
            with pytest.raises(WorkerFailed, match="item 5 could not be made"):
                next(loader)
        assert loader.next_index == 5


def test_a_worker_that_dies_is_reported_with_the_item_it_owed() -> None:
    with Loader(dies_at_two, workers=1, prefetch=1) as loader:
        assert list(islice(loader, 2)) == [0, 1]
        with pytest.raises(WorkerFailed, match="worker for item 2 died"):
            next(loader)


def test_closing_leaves_no_process_behind() -> None:
    before = set(multiprocessing.active_children())
    loader = Loader(square, workers=2)
    next(loader)
    loader.close()
    loader.close()
    assert set(multiprocessing.active_children()) == before
    with pytest.raises(InvalidRequest, match="closed"):
        next(loader)


@pytest.mark.parametrize("arguments", [{"start": -1}, {"workers": -1}, {"prefetch": 0}])
def test_impossible_settings_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest, match="at least 1"):
        Loader(square, **arguments)
