"""A server that is asked by many users at a time: requests for a turn, and what came of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from harness.records import CellResult
from harness.workers import WorkerError

from load.bench import Reply
from load.client.asking import completion
from load.client.traces import Trace, outcomes, summary
from load.client.users import keep_asking
from load.models import Served
from load.servers import Server

WARM_ROUNDS = 2
Questions = Sequence[Sequence[bytes]]
"""Requests of each user."""
Found = TypeVar("Found")


def prompts(served: Served, count: int, rounds: int, turn: int) -> list[list[list[int]]]:
    """Token ids of each user's prompts, new ones in every turn."""
    return [
        [served.token_ids(f"turn {turn}, user {user} of {count}, round {number}") for number in range(rounds)]
        for user in range(count)
    ]


def completions(served: Served, count: int, rounds: int, turn: int) -> Questions:
    """The same as requests."""
    return [
        [completion(ids, served.sizes.answer, served.ends) for ids in user]
        for user in prompts(served, count, rounds, turn)
    ]


def under_load(server: Server, work: Callable[[], Awaitable[Found]]) -> tuple[Found, dict[str, float]]:
    """What some work gives, and the processor time that everybody took for it, the client too."""
    before, began = server.cpu_s(), time.process_time()
    found = asyncio.run(_awaited(work))
    taken = {role: round(spent - before.get(role, 0.0), 3) for role, spent in server.cpu_s().items()}
    return found, taken | {"client": round(time.process_time() - began, 3)}


async def _awaited(work: Callable[[], Awaitable[Found]]) -> Found:
    return await work()


def loaded(server: Server, questions: Questions) -> Reply:
    """Have users ask, and count.

    Raises:
        WorkerError: Not all were answered.
    """
    traces, cpu = under_load(server, lambda: keep_asking(server.address, questions))
    return told(all_whole(traces), cpu)


def told(traces: Sequence[Trace], cpu: dict[str, float]) -> Reply:
    """What a sample tells: figures of the answers, and who took how much processor time."""
    return {**summary(traces), "cpu_s": cpu}


def all_whole(traces: list[Trace]) -> list[Trace]:
    """The same traces.

    Raises:
        WorkerError: Not all of them are of whole answers.
    """
    if not all(trace.whole and trace.pieces_s for trace in traces):
        raise WorkerError(f"not every request was answered: {outcomes(traces)}")
    return traces


def warm(server: Server, served: Served) -> None:
    """Have as many rows run as will be, once without counting."""
    loaded(server, completions(served, max(served.sizes.rounds), WARM_ROUNDS, turn=-1))


def note(result: CellResult, program: str, facts: dict[str, Any]) -> None:
    """Keep what is known of a program with its series."""
    for series in result.series:
        if series.program == program:
            series.facts = facts
