"""What may be under way at a time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from phi4.errors import InvalidRequest
from phi4.server.failures import Draining, Overloaded, TooManyRequests
from phi4.server.limits import Admission
from phi4.server.settings import ServerSettings
from phi4.server.turns import Turns
from phi4.server.waits import Waits

DIGEST = "0" * 64


def admission(turns: Turns | None = None, **options: Any) -> Admission:
    return Admission(ServerSettings(**options), turns or Turns(capacity=16, quantum=1000))


async def slow_turns() -> Turns:
    """One place, and ten seconds for a hundred tokens that waited; 500 more are waiting now."""
    now = 0.0
    turns = Turns(capacity=1, quantum=100, waits=Waits(lambda: now))
    for key in ("", "", *[""] * 5):
        asyncio.get_running_loop().create_task(turns.take(key, 100))
    await asyncio.sleep(0)
    now = 10.0
    turns.give("")
    await asyncio.sleep(0)
    return turns


def test_requests_beyond_the_limit_are_refused_with_a_time_to_come_back() -> None:
    desk = admission(max_requests=2)
    tickets = [desk.enter("a"), desk.enter("b")]
    with pytest.raises(Overloaded) as refused:
        desk.enter("c")
    assert refused.value.status == 503
    assert refused.value.retry_after_s is not None and 1 <= refused.value.retry_after_s <= 60
    tickets[0].close()
    assert desk.enter("c").key == "c"
    assert (desk.under_way, desk.accepted_total, desk.rejected_total) == (2, 3, 1)


def test_who_would_wait_too_long_is_refused_when_it_comes() -> None:
    async def check() -> None:
        desk = admission(await slow_turns(), max_wait_s=49.0)
        with pytest.raises(Overloaded, match="would wait about 50 s") as refused:
            desk.enter("")
        assert refused.value.retry_after_s == 1
        patient = admission(await slow_turns(), max_wait_s=51.0)
        for _ in range(6):  # six that are in the engine or its line already
            patient.enter("")
        patient.enter("")
        with pytest.raises(Overloaded, match="would wait about 60 s"):  # behind the last one, which prepares
            patient.enter("")

    asyncio.run(check())


def test_with_keys_another_line_than_ones_own_delays_nobody_for_long() -> None:
    async def check() -> None:
        desk = admission(await slow_turns(), max_wait_s=1.0, key_digests=(DIGEST,))
        desk.enter("another")
        with pytest.raises(TooManyRequests):
            desk.enter("")

    asyncio.run(check())


def test_one_key_cannot_take_all_places() -> None:
    desk = admission(max_requests=10, max_requests_per_key=2, key_digests=(DIGEST,))
    desk.enter("a"), desk.enter("a")
    with pytest.raises(TooManyRequests) as refused:
        desk.enter("a")
    assert refused.value.status == 429
    assert desk.enter("b").key == "b"


def test_without_keys_there_is_no_limit_for_a_key() -> None:
    desk = admission(max_requests=3, max_requests_per_key=1)
    assert len([desk.enter("") for _ in range(3)]) == 3


def test_closing_a_ticket_twice_returns_its_place_once() -> None:
    desk = admission()
    with desk.enter("a") as ticket:
        other = desk.enter("a")
    ticket.close()
    assert desk.under_way == 1
    other.close()
    assert desk.under_way == 0


def test_bytes_are_counted_before_they_are_kept_and_returned_with_the_ticket() -> None:
    desk = admission(max_held_bytes=2**20, max_body_bytes=2**20)
    first, second = desk.enter("a"), desk.enter("a")
    first.hold(2**19)
    second.hold(2**19)
    with pytest.raises(Overloaded):
        second.hold(1)
    assert desk.held_bytes == 2**20
    first.close()
    second.hold(2**19)
    second.close()
    assert desk.held_bytes == 0


def test_one_key_holds_at_most_half_when_others_hold_anything() -> None:
    desk = admission(max_held_bytes=2**20, max_body_bytes=2**20, key_digests=(DIGEST,))
    greedy, other = desk.enter("a"), desk.enter("b")
    other.hold(1)
    greedy.hold(2**19)
    with pytest.raises(TooManyRequests):
        greedy.hold(1)


def test_one_key_may_hold_everything_when_it_is_alone() -> None:
    desk = admission(max_held_bytes=2**20, max_body_bytes=2**20, key_digests=(DIGEST,))
    desk.enter("a").hold(2**20)
    assert desk.held_bytes == 2**20


def test_what_was_prepared_takes_the_place_of_the_body() -> None:
    desk = admission()
    ticket = desk.enter("a")
    ticket.hold(1000)
    ticket.charge(tokens=50, num_bytes=300)
    assert (desk.held_bytes, desk.held_tokens) == (300, 50)
    ticket.charge(tokens=80, num_bytes=300)
    assert desk.held_tokens == 80
    ticket.close()
    assert (desk.held_bytes, desk.held_tokens) == (0, 0)


def test_a_request_that_never_fits_is_told_so_and_one_that_fits_later_is_too() -> None:
    desk = admission(max_waiting_tokens=100)
    first, second = desk.enter("a"), desk.enter("a")
    with pytest.raises(InvalidRequest, match="at most 100"):
        first.charge(101, 0)
    first.charge(60, 0)
    with pytest.raises(Overloaded):
        second.charge(60, 0)


def test_a_refused_charge_leaves_the_counts_as_they_were() -> None:
    desk = admission(max_waiting_tokens=100)
    first, second = desk.enter("a"), desk.enter("a")
    first.charge(60, 10)
    with pytest.raises(Overloaded):
        second.charge(60, 10)
    second.close()
    first.close()
    assert (desk.held_bytes, desk.held_tokens, desk.under_way) == (0, 0, 0)


def test_keys_of_closed_tickets_are_forgotten() -> None:
    desk = admission(max_requests=100_000)
    for number in range(1000):
        with desk.enter(f"key {number}") as ticket:
            ticket.hold(1)
            ticket.charge(1, 1)
    assert not desk._requests and not desk._bytes and not desk._tokens


def test_draining_refuses_new_requests_and_waits_for_the_others() -> None:
    async def check() -> None:
        desk = admission()
        ticket = desk.enter("a")
        desk.drain()
        with pytest.raises(Draining):
            desk.enter("a")
        waiting = asyncio.create_task(desk.empty())
        await asyncio.sleep(0)
        assert not waiting.done()
        ticket.close()
        await asyncio.wait_for(waiting, 5)

    asyncio.run(check())


def test_a_ticket_says_how_much_time_is_left() -> None:
    ticket = admission(request_timeout_s=50.0).enter("a")
    assert 49 < ticket.remaining() <= 50
    ticket.deadline = 0.0
    assert ticket.remaining() == 0.0
