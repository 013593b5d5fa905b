"""How long a turn takes to come."""

from __future__ import annotations

import asyncio

import pytest

from phi4.server.turns import Turns
from phi4.server.waits import Waits


class Clock:
    """Time that is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_nothing_is_known_before_anybody_waited(clock: Clock) -> None:
    waits = Waits(clock)
    assert (waits.seconds(10**9), waits.usual_tokens) == (0.0, 0.0)


def test_the_rate_is_that_of_work_let_in_while_somebody_waited(clock: Clock) -> None:
    waits = Waits(clock)
    waits.began()
    clock.now = 2.0
    waits.began()  # another one, beside the first
    clock.now = 4.0
    waits.let_in(100, others_wait=True)
    assert waits.seconds(100) == pytest.approx(4.0)
    clock.now = 8.0
    waits.let_in(100, others_wait=False)
    assert waits.seconds(50) == pytest.approx(2.0)
    assert waits.usual_tokens == pytest.approx(100)


def test_time_in_which_nobody_waits_does_not_count(clock: Clock) -> None:
    waits = Waits(clock)
    waits.began()
    clock.now = 1.0
    waits.let_in(100, others_wait=False)
    clock.now = 1000.0
    waits.began()
    clock.now = 1500.0
    waits.ended()  # it left
    clock.now = 2000.0
    waits.began()
    clock.now = 2001.0
    waits.let_in(100, others_wait=False)
    assert waits.seconds(100) == pytest.approx(1.0)


def test_what_was_learned_follows_a_new_load(clock: Clock) -> None:
    waits = Waits(clock)
    for seconds in [1.0] * 50 + [10.0] * 100:
        waits.began()
        clock.now += seconds
        waits.let_in(100, others_wait=False)
    assert waits.seconds(100) == pytest.approx(10.0, rel=0.1)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def take(turns: Turns, key: str, cost: int = 100, count: int = 1) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(turns.take(key, cost)) for _ in range(count)]


def test_a_newcomer_waits_behind_its_own_line_and_a_turn_of_each_other(clock: Clock) -> None:
    async def check() -> None:
        turns = Turns(capacity=1, quantum=100, waits=Waits(clock))
        take(turns, "flood", count=12)
        await settle()
        assert turns.wait_s("flood", 0) == 0.0  # nothing is known yet
        clock.now = 1.0
        turns.give("flood")
        await settle()  # ten wait, a second each
        assert turns.wait_s("flood", 0) == pytest.approx(10.0)
        assert turns.wait_s("flood", 3) == pytest.approx(13.0)
        assert turns.wait_s("quiet", 0) == 0.0
        take(turns, "quiet", count=2)
        await settle()
        assert turns.wait_s("quiet", 0) == pytest.approx(4.0)
        assert turns.wait_s("flood", 0) == pytest.approx(12.0)

    asyncio.run(check())


def test_with_places_free_nobody_waits(clock: Clock) -> None:
    async def check() -> None:
        turns = Turns(capacity=2, quantum=100, waits=Waits(clock))
        take(turns, "a", count=3)
        await settle()
        clock.now = 1.0
        turns.give("a")
        turns.give("a")
        await settle()
        assert turns.running == 1
        assert turns.wait_s("a", 0) == 0.0
        assert turns.wait_s("a", 1) == pytest.approx(1.0)

    asyncio.run(check())


def test_who_leaves_the_line_is_waited_for_no_more(clock: Clock) -> None:
    async def check() -> None:
        turns = Turns(capacity=1, quantum=100, waits=Waits(clock))
        waiting = take(turns, "a", count=5)
        await settle()
        clock.now = 1.0
        turns.give("a")
        await settle()
        assert turns.places("a") == 4
        for task in waiting[2:]:
            task.cancel()
        await settle()
        assert (turns.wait_s("a", 0), turns.places("a"), turns.waiting) == (0.0, 1, 0)

    asyncio.run(check())


def test_what_is_expected_holds_until_turns_show_otherwise(clock: Clock) -> None:
    waits = Waits(clock)
    waits.expect(100.0)
    assert (waits.seconds(200), waits.usual_tokens) == (pytest.approx(2.0), 0.0)
    for _ in range(100):
        waits.began()
        clock.now += 10.0
        waits.let_in(100, others_wait=False)
    assert waits.seconds(200) == pytest.approx(20.0, rel=0.1)
    assert waits.usual_tokens == pytest.approx(100)


def test_the_first_to_come_in_a_crowd_are_judged_by_what_is_expected(clock: Clock) -> None:
    async def check() -> None:
        turns = Turns(capacity=1, quantum=100, waits=Waits(clock))
        turns.expect(100.0)
        take(turns, "a", cost=100, count=4)
        await settle()
        assert turns.wait_s("a", 0) == pytest.approx(3.0)

    asyncio.run(check())
