"""Answers on their way to a client."""

from __future__ import annotations

import asyncio

import pytest

from phi4.errors import OutOfMemory
from phi4.server.failures import DeadlineExceeded
from phi4.server.worker.flight import Flight
from phi4.server.worker.values import ServerEvent, ToolCallDelta


def test_what_was_said_comes_before_the_error() -> None:
    async def check() -> None:
        flight = Flight("", 10)
        flight.put(ServerEvent(text="a"))
        flight.fail(OutOfMemory("full"))
        flight.put(ServerEvent(text="late"))
        assert (await flight.next()).text == "a"
        with pytest.raises(OutOfMemory):
            await flight.next()

    asyncio.run(check())


def test_only_the_first_error_counts() -> None:
    async def check() -> None:
        flight = Flight("", 10)
        flight.fail(OutOfMemory("first"))
        flight.fail(DeadlineExceeded("second"))
        with pytest.raises(OutOfMemory, match="first"):
            await flight.next()

    asyncio.run(check())


def test_a_reader_that_waits_is_woken() -> None:
    async def check() -> None:
        flight = Flight("", 10)
        reading = asyncio.create_task(flight.next())
        await asyncio.sleep(0)
        flight.put(ServerEvent(text="a"))
        assert (await asyncio.wait_for(reading, 5)).text == "a"

    asyncio.run(check())


def test_a_client_that_does_not_read_is_given_up_at_the_limit() -> None:
    async def check() -> None:
        flight = Flight("", 3)
        for _ in range(3):
            flight.put(ServerEvent(text="a"))
        assert not flight.failed
        flight.put(ServerEvent(text="a"))
        assert flight.failed
        assert (await flight.next()).text == "aaa"
        with pytest.raises(DeadlineExceeded, match="reads too slowly"):
            await flight.next()

    asyncio.run(check())


def test_the_deadline_ends_it() -> None:
    async def check() -> None:
        flight = Flight("", 3)
        flight.end_at(asyncio.get_running_loop().time() + 0.01)
        with pytest.raises(DeadlineExceeded, match="did not get done"):
            await asyncio.wait_for(flight.next(), 5)
        flight.close()

    asyncio.run(check())


def test_an_answer_that_does_not_begin_in_time_ends() -> None:
    async def check() -> None:
        flight = Flight("", 3)
        flight.begin_within(0.01)
        with pytest.raises(DeadlineExceeded, match="did not begin"):
            await asyncio.wait_for(flight.next(), 5)

    asyncio.run(check())


def test_the_first_words_stop_the_clock_for_the_first_words() -> None:
    async def check() -> None:
        flight = Flight("", 3)
        flight.begin_within(0.01)
        flight.put(ServerEvent(text="a"))
        flight.begin_within(0.01)  # a second row of the same request
        await flight.next()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(flight.next(), 0.1)
        assert not flight.failed

    asyncio.run(check())


def test_closing_stops_all_clocks() -> None:
    async def check() -> None:
        flight = Flight("", 3)
        flight.end_at(asyncio.get_running_loop().time() + 0.01)
        flight.begin_within(0.01)
        flight.close()
        await asyncio.sleep(0.05)
        assert not flight.failed

    asyncio.run(check())


def test_first_words_are_handed_on_at_once_and_the_next_wait_for_more() -> None:
    async def check() -> None:
        flight = Flight("", 10, interval_s=3600.0)
        flight.put(ServerEvent(text="a"))
        assert (await flight.next()).text == "a"
        reading = asyncio.create_task(flight.next())
        await asyncio.sleep(0)
        flight.put(ServerEvent(text="b"))
        flight.put(ServerEvent(text="c"))
        await asyncio.sleep(0.01)
        assert not reading.done()
        flight.put(ServerEvent(text="d", finish_reason="stop"))
        last = await asyncio.wait_for(reading, 5)
        assert (last.text, last.finish_reason) == ("bcd", "stop")
        flight.close()

    asyncio.run(check())


def test_what_waits_for_more_is_handed_on_when_its_time_has_come() -> None:
    async def check() -> None:
        flight = Flight("", 10, interval_s=0.01)
        flight.put(ServerEvent(text="a"))
        await flight.next()
        flight.put(ServerEvent(text="b"))  # before anybody reads on
        assert (await asyncio.wait_for(flight.next(), 5)).text == "b"
        reading = asyncio.create_task(flight.next())
        await asyncio.sleep(0)
        flight.put(ServerEvent(text="c"))
        assert (await asyncio.wait_for(reading, 5)).text == "c"

    asyncio.run(check())


def test_an_error_does_not_wait_for_more() -> None:
    async def check() -> None:
        flight = Flight("", 10, interval_s=3600.0)
        flight.put(ServerEvent(text="a"))
        await flight.next()
        flight.put(ServerEvent(text="b"))
        flight.fail(OutOfMemory("full"))
        assert (await asyncio.wait_for(flight.next(), 5)).text == "b"
        with pytest.raises(OutOfMemory):
            await asyncio.wait_for(flight.next(), 5)

    asyncio.run(check())


def test_what_is_gathered_stays_with_its_answer_and_in_order() -> None:
    async def check() -> None:
        flight = Flight("", 10)
        for text in "abc":
            for index in (1, 0):
                flight.put(ServerEvent(index, text=f"{text}{index}"))
        first, second = await flight.next(), await flight.next()
        assert (first.index, first.text) == (1, "a1b1c1")
        assert (second.index, second.text) == (0, "a0b0c0")

    asyncio.run(check())


def test_pieces_of_one_call_become_one_and_those_of_two_stay_two() -> None:
    async def check() -> None:
        flight = Flight("", 10)
        pieces = (
            ToolCallDelta(0, "call_1", "look", ""),
            ToolCallDelta(0, arguments="{"),
            ToolCallDelta(0, arguments="}"),
            ToolCallDelta(1, "call_2", "look", "{}"),
        )
        for piece in pieces:
            flight.put(ServerEvent(tool_calls=(piece,)))
        found = (await flight.next()).tool_calls
        assert found == (ToolCallDelta(0, "call_1", "look", "{}"), ToolCallDelta(1, "call_2", "look", "{}"))

    asyncio.run(check())
