"""Preparer processes: each does one job at a time, and one that dies or dawdles is replaced.

A job that its client no longer waits for is finished all the same (it is short): killing the process would
cost more than it saves, and could be provoked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from phi4.errors import Phi4Error
from phi4.server.failures import (
    DeadlineExceeded,
    Draining,
    InternalFailure,
    NotReady,
    PreparationFailed,
)
from phi4.server.settings import ServerSettings
from phi4.server.worker.frames import Done, Job, NotStarted, PreparerReady, StartPreparer, encode, error_of
from phi4.server.worker.process import Child, Gone
from phi4.server.worker.values import Prepared, PrepareRequest

_log = logging.getLogger(__name__)
PREPARER = "phi4.server.worker.preparer"
"""Program of the processes."""
_LONGEST_PAUSE_S = 30.0


class PreparerPool:
    """The preparers of a server.

    Args:
        settings: How many, and their limits.
        program: What they run.

    Attributes:
        prepared_total: Jobs done.
        deaths_total: Processes that died or were killed.
        preparing: Jobs under way or waiting for a process.
    """

    def __init__(self, settings: ServerSettings, program: str = PREPARER) -> None:
        self._settings = settings
        self._program = program
        self._start: StartPreparer | None = None
        self._idle: asyncio.Queue[Child | None] = asyncio.Queue()
        self._children: set[Child] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.prepared_total = 0
        self.deaths_total = 0
        self.preparing = 0
        self._closed = False

    async def start(self, start: StartPreparer) -> None:
        """Start all of them.

        Raises:
            Phi4Error: Why one could not start.
        """
        self._start = start
        begun = await asyncio.gather(
            *(self._begin() for _ in range(self._settings.preparers)), return_exceptions=True
        )
        for child in begun:
            if isinstance(child, BaseException):
                raise child
            self._idle.put_nowait(child)

    async def prepare(self, request: PrepareRequest, remaining_s: float) -> Prepared:
        """Have a request prepared.

        Args:
            request: What to prepare.
            remaining_s: Time the request has left.

        Raises:
            Phi4Error: Why it cannot be.
        """
        job = encode(Job(request))  # what cannot be sent is the client's fault, and costs no process
        self.preparing += 1
        try:
            deadline = asyncio.get_running_loop().time() + remaining_s
            child = await self._free(min(self._settings.queue_timeout_s, remaining_s))
            left_s = deadline - asyncio.get_running_loop().time()
            running = self._keep(self._run(child, job, left_s))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                if running.cancelled():
                    raise _shut_down() from None
                raise
        finally:
            self.preparing -= 1

    async def close(self) -> None:
        """End all of them, at once."""
        self._closed = True
        self._idle.put_nowait(None)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(child.end() for child in self._children))
        self._children.clear()

    async def _free(self, wait_s: float) -> Child:
        """A process that waits for a job."""
        try:
            async with asyncio.timeout(wait_s):
                while True:
                    child = await self._idle.get()
                    if child is None or self._closed:
                        self._idle.put_nowait(None)  # for the next one who waits
                        raise _shut_down()
                    if not child.gone:
                        return child
                    self._replace(child)
        except TimeoutError:
            raise DeadlineExceeded("the request waited too long to be prepared; try again later", 5) from None

    async def _run(self, child: Child, job: bytes, left_s: float) -> Prepared:
        limit_s = min(self._settings.prepare_timeout_s, left_s)
        try:
            async with asyncio.timeout(limit_s):
                child.write(job)
                frame = await child.receive()
        except TimeoutError:
            self._replace(child)
            if left_s <= self._settings.prepare_timeout_s:
                raise DeadlineExceeded("the request did not get prepared in the time it had") from None
            raise PreparationFailed(
                f"preparing the request took longer than {limit_s:g} s; send less or smaller media, or a "
                "simpler form of the answer"
            ) from None
        except Gone:
            self._replace(child)
            raise PreparationFailed(
                "the process that read the request died of it; check its media and the form of the answer"
            ) from None
        if not isinstance(frame, Done):
            self._replace(child)
            raise InternalFailure("a preparer sent what no preparer sends")
        self._idle.put_nowait(child)
        return self._result(frame)

    def _result(self, done: Done) -> Prepared:
        if done.failure is not None:
            raise error_of(done.failure)
        if done.result is None:
            raise InternalFailure("a preparer sent nothing")
        self.prepared_total += 1
        return done.result

    def _replace(self, child: Child) -> None:
        self.deaths_total += 1
        self._keep(self._renew(child))

    async def _renew(self, child: Child) -> None:
        status = await child.end()
        self._children.discard(child)
        _log.warning("preparer %d ended with status %d; another takes its place", child.pid, status)
        pause_s = 0.0
        while True:
            try:
                self._idle.put_nowait(await self._begin())
                return
            except (Phi4Error, OSError) as error:
                pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s or 0.5)
                _log.error(
                    "no preparer could be started (%s); next try in %g s", type(error).__name__, pause_s
                )
                await asyncio.sleep(pause_s)

    async def _begin(self) -> Child:
        """Start one.

        Raises:
            Phi4Error: Why it could not start.
            OSError: The system has no room for another process.
        """
        assert self._start is not None, "the pool was started"
        child = await Child.spawn(self._program, one_thread=True)
        self._children.add(child)
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                child.send(self._start)
                frame = await child.receive()
            if isinstance(frame, PreparerReady):
                return child
            if isinstance(frame, NotStarted):
                raise error_of(frame.failure)
            raise InternalFailure("a preparer sent what no preparer sends")
        except BaseException as error:
            await child.end()
            self._children.discard(child)
            if isinstance(error, Gone | TimeoutError):
                raise NotReady("a preparer did not start") from None
            raise

    def _keep(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something in the background; its error is for whoever waits for it, if anybody does."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._kept)
        return task

    def _kept(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()


def _shut_down() -> Draining:
    return Draining("the server has shut down")
