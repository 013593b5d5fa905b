"""A long time of everything at once, while users leave at random: does anything grow, is anything left?

The caches are small here, so that they are full before the clock starts: a cache that fills looks like a
leak. Memory is that of every process of the server, each second. At the end nothing may be running or
waiting, and the cache may hold no more than it kept when it was full and nobody asked.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from harness.records import CellResult

from load.bench import Bench, Reply, Takes
from load.cells import OURS, Cell
from load.client.mix import CANARY, Kind, all_kinds, answer_of
from load.client.traces import OK
from load.client.wire import Wire
from load.driving import note, under_load
from load.metrics import settled
from load.servers import Server

USERS = 8
LEAVING = 0.3
"""Share of requests whose user does not wait for the end."""
MEAN_PATIENCE_S = 0.3
CANARY_S = 5.0
FILL_S = 60.0
CACHES = ("--prefix-cache-bytes", str(2**25), "--encoder-cache-bytes", str(2**23))
_KEPT = 5
"""Seconds of which the record keeps the highest value."""
_SHARE = 5
"""What the last fifth holds is compared with what the second holds."""

Outcomes = Counter[tuple[str, str]]
"""How often a kind of request ended in a way."""


@contextmanager
def soak(bench: Bench, cell: Cell, result: CellResult) -> Iterator[Takes]:
    """The only sample: how much more memory there is at the end, in percent."""
    seconds = 60 * float(cell.settings["minutes"])
    with bench.ours(cell.model, *CACHES) as server:
        note(result, OURS, server.facts)

        def take(turn: int) -> Reply:
            fill_s = min(FILL_S, seconds / _SHARE)
            under_load(server, lambda: everybody(server, fill_s, "fill"))
            filled = settled(server)
            (outcomes, memory, canaries), cpu = under_load(
                server, lambda: everybody(server, seconds, f"soak {turn}")
            )
            return {
                **growth(memory),
                "minutes": cell.settings["minutes"],
                "users": USERS,
                "outcomes": {f"{kind}: {end}": count for (kind, end), count in sorted(outcomes.items())},
                "canary_answers": dict(canaries),
                "when_full": filled,
                "at_the_end": settled(server),
                "cpu_s": cpu,
            }

        yield dict.fromkeys(cell.series, take)


Memory = list[tuple[float, dict[str, int]]]
"""Seconds since the beginning, bytes of each process."""


async def everybody(server: Server, seconds: float, seed: str) -> tuple[Outcomes, Memory, Counter[str]]:
    """All users for so long, the canary among them, and a look at the memory each second."""
    began, kinds = time.perf_counter(), all_kinds()
    outcomes: Outcomes = Counter()
    canaries: Counter[str] = Counter()
    memory: Memory = []
    until = began + seconds

    async def watch() -> None:
        while (now := time.perf_counter()) < until:
            memory.append((now - began, server.resident_bytes()))
            await asyncio.sleep(1.0 - (time.perf_counter() - began) % 1.0)

    chances = [random.Random(f"{seed}, user {number}") for number in range(USERS)]
    users = [_user(server, chance, kinds, until, outcomes) for chance in chances]
    await asyncio.gather(watch(), _canary(server, until, canaries), *users)
    return outcomes, memory, canaries


async def _user(
    server: Server, chance: random.Random, kinds: Sequence[Kind], until: float, outcomes: Outcomes
) -> None:
    wire = Wire(*server.address)
    while time.perf_counter() < until:
        kind = chance.choices(kinds, [kind.weight for kind in kinds])[0]
        patience = chance.expovariate(1 / MEAN_PATIENCE_S) if chance.random() < LEAVING else None
        outcomes[kind.name, await _one(wire, kind, kind.make(chance), patience)] += 1
    wire.abort()


async def _one(wire: Wire, kind: Kind, request: bytes, patience_s: float | None) -> str:
    """Ask, and perhaps leave; returns how it ended."""
    broken: list[bytes] = []

    def hear(status: int, data: bytes) -> None:
        if status == kind.status == OK and b'"error":{' in data:
            broken.append(data)

    try:
        async with asyncio.timeout(patience_s):
            status = await wire.exchange(request, hear)
    except TimeoutError:
        return "left"
    except (OSError, EOFError, ValueError) as error:
        return f"lost: {type(error).__name__}"
    if broken:
        return "broke off"
    return "as expected" if status == kind.status else f"status {status}"


async def _canary(server: Server, until: float, answers: Counter[str]) -> None:
    wire = Wire(*server.address)
    while time.perf_counter() < until:
        answers[await _said(wire)] += 1
        await asyncio.sleep(min(CANARY_S, max(0.0, until - time.perf_counter())))
    wire.abort()


async def _said(wire: Wire) -> str:
    """What the canary is answered."""
    body: list[bytes] = []
    try:
        status = await wire.exchange(CANARY, lambda _, data: body.append(data))
    except (OSError, EOFError, ValueError) as error:
        return f"lost: {type(error).__name__}"
    return answer_of(b"".join(body)) if status == OK else f"status {status}"


def growth(memory: Memory) -> dict[str, Any]:
    """What became of the memory: all processes together, and each over time in MB."""
    totals = [sum(held.values()) for _, held in memory]
    part = max(1, len(totals) // _SHARE)
    early, late = statistics.median(totals[part : 2 * part] or totals), statistics.median(totals[-part:])
    roles = dict.fromkeys(role for _, held in memory for role in held)
    windows = [memory[first : first + _KEPT] for first in range(0, len(memory), _KEPT)]
    return {
        "grown_percent": 100 * (late / early - 1),
        "early_MB": early / 1e6,
        "late_MB": late / 1e6,
        "most_MB": max(totals) / 1e6,
        "at_s": [round(window[0][0]) for window in windows],
        "resident_MB": {
            role: [round(max(held.get(role, 0) for _, held in window) / 1e6, 1) for window in windows]
            for role in roles
        },
    }
