"""Many users of one server at a time.

`keep_asking`: so many users, each of whom asks the next question when the last is answered; the server
decides how fast. `ask_at_rate`: requests come evenly spaced however the server does, as from strangers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from load.client.asking import ask
from load.client.traces import Trace
from load.client.wire import Wire

Address = tuple[str, int]
"""Host and port."""


async def keep_asking(address: Address, questions: Sequence[Sequence[bytes]]) -> list[Trace]:
    """Have each user ask all questions of a list, one after the other; all users begin at once.

    Args:
        address: Of the server.
        questions: A list of requests for each user.
    """

    async def user(requests: Sequence[bytes]) -> list[Trace]:
        wire = Wire(*address)
        try:
            return [await ask(wire, request) for request in requests]
        finally:
            wire.abort()

    found = await asyncio.gather(*(user(requests) for requests in questions))
    return [trace for traces in found for trace in traces]


async def ask_at_rate(
    address: Address, question: Callable[[int], bytes], rate_per_s: float, seconds: float, patience_s: float
) -> tuple[float, list[Trace]]:
    """Ask at a steady rate, whatever becomes of it, then wait a while for what is not answered yet.

    Args:
        address: Of the server.
        question: Gives the request of each number from 0.
        rate_per_s: Requests a second.
        seconds: For how long.
        patience_s: How long to wait after that.

    Returns:
        When the first was due, and what became of all.
    """
    idle: list[Wire] = []
    wires: list[Wire] = []

    async def one(request: bytes, due_s: float) -> Trace:
        if not idle:
            wires.append(Wire(*address))
            idle.append(wires[-1])
        wire = idle.pop()
        left_s = began + seconds + patience_s - time.perf_counter()
        trace = await ask(wire, request, due_s, left_s)
        idle.append(wire)
        return trace

    requests = [question(number) for number in range(max(1, round(rate_per_s * seconds)))]
    began = time.perf_counter()
    tasks: list[asyncio.Task[Trace]] = []
    for number, request in enumerate(requests):
        due = began + number / rate_per_s
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(request, due)))
    traces = await asyncio.gather(*tasks)
    for wire in wires:
        wire.abort()
    return began, traces
