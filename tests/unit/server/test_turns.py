"""Whose answer begins next."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from phi4.server.turns import Turns


class Line:
    """Takers that note when their turn came."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.came: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    def ask(self, key: str, cost: int = 100, width: int = 1) -> asyncio.Task[None]:
        async def wait() -> None:
            await self.turns.take(key, cost, width)
            self.came.append(key)

        task = asyncio.create_task(wait())
        self.tasks.append(task)
        return task


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_turns_come_at_once_while_there_are_places() -> None:
    async def check() -> None:
        line = Line(Turns(capacity=3, quantum=100))
        for _ in range(4):
            line.ask("a")
        await settle()
        assert line.came == ["a"] * 3
        assert (line.turns.running, line.turns.waiting) == (3, 1)
        line.turns.give("a")
        await settle()
        assert len(line.came) == 4 and line.turns.waiting == 0

    asyncio.run(check())


def test_places_are_those_of_all_keys_together() -> None:
    async def check() -> None:
        line = Line(Turns(capacity=3, quantum=100))
        for key in "abcd":
            line.ask(key)
        await settle()
        assert len(line.came) == 3 and (line.turns.running, line.turns.waiting) == (3, 1)
        line.turns.give("a")
        await settle()
        assert len(line.came) == 4

    asyncio.run(check())


def test_a_key_with_fifty_requests_does_not_delay_one_with_a_single_one() -> None:
    async def check() -> None:
        line = Line(Turns(capacity=1, quantum=100))
        for _ in range(50):
            line.ask("flood")
        await settle()
        line.ask("quiet")
        await settle()
        for _ in range(3):
            line.turns.give(line.came[-1])
            await settle()
        assert "quiet" in line.came[:4]

    asyncio.run(check())


def test_work_is_shared_by_tokens_and_not_by_requests() -> None:
    async def check() -> None:
        line = Line(Turns(capacity=1, quantum=200))
        for _ in range(40):
            line.ask("long", 400)
            line.ask("short", 100)
        await settle()
        for _ in range(30):
            line.turns.give(line.came[-1])
            await settle()
        shares = Counter(line.came)
        assert 3 <= shares["short"] / shares["long"] <= 5

    asyncio.run(check())


def test_one_key_leaves_places_for_others_when_told_to() -> None:
    async def check() -> None:
        line = Line(Turns(capacity=4, quantum=1000, most_per_key=3))
        for _ in range(10):
            line.ask("flood")
        await settle()
        assert line.came == ["flood"] * 3
        line.ask("quiet")
        await settle()
        assert line.came[-1] == "quiet"

    asyncio.run(check())


def test_a_wide_request_is_not_overtaken_for_ever() -> None:
    async def check() -> None:
        line = Line(Turns(capacity=4, quantum=10_000))
        for _ in range(3):
            line.ask("a")
        await settle()
        line.ask("wide", width=4)
        await settle()
        line.ask("a")
        await settle()
        assert line.came == ["a"] * 3
        for _ in range(3):
            line.turns.give("a")
        await settle()
        assert line.came[3] == "wide"

    asyncio.run(check())


def test_a_request_wider_than_all_places_runs_alone() -> None:
    async def check() -> None:
        line = Line(Turns(capacity=2, quantum=100, most_per_key=2))
        line.ask("wide", width=5)
        await settle()
        assert line.came == ["wide"] and line.turns.running == 5

    asyncio.run(check())


def test_a_cancelled_wait_leaves_the_line_and_lets_the_next_one_go() -> None:
    async def check() -> None:
        line = Line(Turns(capacity=2, quantum=100))
        line.ask("a")
        await settle()
        wide, behind = line.ask("b", width=2), line.ask("c")
        await settle()
        assert not behind.done()
        wide.cancel()
        await settle()
        assert behind.done() and line.turns.waiting == 0

    asyncio.run(check())


def test_a_turn_that_comes_as_the_wait_is_cancelled_is_given_back() -> None:
    async def check() -> None:
        line = Line(Turns(capacity=1, quantum=100))
        line.ask("a")
        await settle()
        late = line.ask("b")
        await settle()
        line.turns.give("a")  # grants the turn; the task has not run yet
        late.cancel()
        await settle()
        assert late.cancelled() and line.turns.running == 0

    asyncio.run(check())


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 5000), st.integers(1, 3), st.booleans()), max_size=40
    ),
    st.integers(1, 4),
    st.integers(1, 3000),
)
def test_every_turn_comes_and_nothing_is_left(
    asked: list[tuple[str, int, int, bool]], capacity: int, quantum: int
) -> None:
    async def check() -> None:
        turns = Turns(capacity, quantum, most_per_key=max(1, capacity - 1))
        most = 0

        async def one(key: str, cost: int, width: int) -> None:
            nonlocal most
            await turns.take(key, cost, width)
            most = max(most, turns.running)
            try:
                await asyncio.sleep(0)
            finally:
                turns.give(key, width)

        tasks = [asyncio.create_task(one(key, cost, width)) for key, cost, width, _ in asked]
        await asyncio.sleep(0)
        for task, (_, _, _, leaves) in zip(tasks, asked, strict=True):
            if leaves:
                task.cancel()
        async with asyncio.timeout(5):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert (turns.running, turns.waiting) == (0, 0)
        widest = max((width for _, _, width, _ in asked), default=0)
        assert most <= max(capacity, widest)

    asyncio.run(check())
