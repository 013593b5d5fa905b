"""Micro-batches for the trainer, prepared ahead by worker processes, in an order that never varies.

A `RowSource` makes the rows of a task; workers collate whole micro-batches, so the trainer's process
only moves arrays. The order is that of `order.needed_batches` and depends neither on the number of
workers nor on their pace. With replay, used batches wait in a ring for their next turn. Workers never
import torch.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Protocol

from phi4.data.loader import Loader
from phi4.train.collate import Collated, TrainRow, collate
from phi4.train.order import BatchSpec, batch_number, batch_spec, last_position, needed_batches
from phi4.train.settings import Recipe, TaskShare


class RowSource(Protocol):
    """Where rows come from; must be picklable and a pure function of its arguments."""

    @property
    def pad_id(self) -> int:
        """Token that fills rows."""
        ...

    def rows(self, task: TaskShare, indices: Sequence[int]) -> list[TrainRow]:
        """The training rows with these indices of a task, fit for its objective."""
        ...


class BatchMaker:
    """Makes the i-th batch that a feed starting at `start` needs; what a worker process holds.

    Args:
        source: Makes rows.
        recipe: Decides the order.
        stage: Index of the stage.
        start: First micro-batch position of the feed.
    """

    def __init__(self, source: RowSource, recipe: Recipe, stage: int, start: int) -> None:
        self._source, self._recipe, self._stage, self._start = source, recipe, stage, start
        self._numbers: Iterator[int] | None = None
        self._next = 0

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_numbers": None, "_next": 0}

    def __call__(self, index: int) -> Collated:
        """Generate and collate; fast for rising indices."""
        if self._numbers is None or index < self._next:
            self._numbers, self._next = needed_batches(self._recipe, self._stage, self._start), 0
        number = next(islice(self._numbers, index - self._next, None))
        self._next = index + 1
        spec = batch_spec(self._recipe, self._stage, number)
        return collate(self._source.rows(spec.task, spec.indices), self._source.pad_id)


class Feed:
    """Iterator over (spec, arrays) of a stage from micro-batch position `start` on. Endless; close it.

    Args:
        source: Makes rows; picklable.
        recipe: Decides the order.
        stage: Index of the stage.
        start: First micro-batch position.
        workers: Processes; 0 = prepare in this process when asked.
    """

    def __init__(
        self, source: RowSource, recipe: Recipe, stage: int, start: int = 0, workers: int = 0
    ) -> None:
        self._recipe, self._stage, self._position = recipe, stage, start
        self._ring: dict[int, Collated] = {}
        self._order = needed_batches(recipe, stage, start)
        self._loader = Loader(BatchMaker(source, recipe, stage, start), workers=workers, prefetch=2)

    def __iter__(self) -> Iterator[tuple[BatchSpec, Collated]]:
        return self

    def __next__(self) -> tuple[BatchSpec, Collated]:
        number = batch_number(self._recipe, self._stage, self._position)
        while number not in self._ring:
            self._ring[next(self._order)] = next(self._loader)
        arrays = self._ring[number]
        if last_position(self._recipe, number) <= self._position:
            del self._ring[number]
        self._position += 1
        return batch_spec(self._recipe, self._stage, number), arrays

    def close(self) -> None:
        """End the workers."""
        self._loader.close()


class Ahead:
    """Runs an iterator in a thread, `depth` items ahead, so that receiving overlaps with computing."""

    def __init__(self, items: Iterator[object], depth: int) -> None:
        self._items, self._depth = items, depth
        self._ready: deque[object] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._fill, name="phi4-train-feed", daemon=True)
        self._thread.start()

    def _fill(self) -> None:
        try:
            for item in self._items:
                with self._changed:
                    self._ready.append(item)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._closed or len(self._ready) < self._depth)
                    if self._closed:
                        return
            self._end(StopIteration())
        except BaseException as error:
            self._end(error)

    def _end(self, error: BaseException) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def __iter__(self) -> Iterator[object]:
        return self

    def __next__(self) -> object:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._error is not None)
            if not self._ready:
                assert self._error is not None
                raise self._error
            item = self._ready.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Stop the thread, which first finishes the item it is waiting for; close the source afterwards."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=30)
