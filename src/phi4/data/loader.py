"""Makes items in worker processes and hands them over in order, from any index on.

`make(index)` must be a pure function that can be pickled; then the sequence is the same for any number of
workers, and a run that stopped after item k goes on with `start=k + 1`. Workers are spawned, not forked:
the caller may hold threads and locks (a training process does) that a fork would copy in mid-air.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Generic, TypeVar

from phi4.errors import InvalidRequest, Phi4Error

T = TypeVar("T")


class WorkerFailed(Phi4Error):
    """A worker process could not make an item; the message holds the index and the worker's traceback."""


class Loader(Generic[T]):
    """Ordered, endless iterator over `make(start)`, `make(start + 1)`, ...; close it, or use `with`.

    After an item that failed in a worker there are no more: each further `next` raises the same error.

    Worker w of n makes the items start + w, start + w + n, ...; each works ahead as far as its pipe and
    `prefetch` allow.

    Args:
        make: Index to item; picklable when there are workers.
        start: First index.
        workers: Processes; 0 makes items in this process when asked.
        prefetch: Items each worker may be ahead, 1 or more.

    Raises:
        InvalidRequest: A negative start or number of workers, or a prefetch below 1.
    """

    def __init__(self, make: Callable[[int], T], start: int = 0, workers: int = 0, prefetch: int = 4) -> None:
        if start < 0 or workers < 0 or prefetch < 1:
            raise InvalidRequest(
                f"start {start} and workers {workers} must be 0 or more, prefetch {prefetch} at least 1"
            )
        self._make, self._start, self._workers = make, start, workers
        self._next = start
        self._failure = ""
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        context = multiprocessing.get_context("spawn")
        for worker in range(workers):
            ours, theirs = context.Pipe()
            arguments = (make, start + worker, workers, theirs)
            process = context.Process(target=_work, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
            for _ in range(prefetch):
                ours.send(None)  # one permission for one item

    @property
    def next_index(self) -> int:
        """Index of the item that `next` returns; what to store for going on later."""
        return self._next

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        index = self._next
        item = self._make(index) if not self._workers else self._receive(index)
        self._next += 1
        return item

    def _receive(self, index: int) -> T:
        if self._failure:  # its worker has gone on to a later item, which must not pass for this one
            raise WorkerFailed(self._failure)
        if not self._pipes:
            raise InvalidRequest("this loader is closed; make a new one with start=loader.next_index")
        pipe = self._pipes[(index - self._start) % self._workers]
        try:
            pipe.send(None)
            failure, item = pipe.recv()
        except (EOFError, ConnectionError) as error:
            self._failure = f"the worker for item {index} died without a word (out of memory?)"
            raise WorkerFailed(self._failure) from error
        if failure:
            self._failure = f"item {index} could not be made:\n{failure}"
            raise WorkerFailed(self._failure)
        made: T = item
        return made

    def close(self) -> None:
        """Ends the workers and waits for them; items they had made ahead are dropped."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=5)
            if process.is_alive():  # in the middle of an item that takes long
                process.terminate()
                process.join()
        self._pipes, self._processes = [], []

    def __enter__(self) -> Loader[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _work(make: Callable[[int], object], index: int, stride: int, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C stops the caller, who then ends its workers
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            pipe.recv()
            try:
                pipe.send(("", make(index)))
            except ConnectionError:
                raise
            except Exception:
                pipe.send((traceback.format_exc(), None))
            index += stride
