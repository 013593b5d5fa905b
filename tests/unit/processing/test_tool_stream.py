"""Calls come piece by piece while they are written, and the pieces make up what the model wrote."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

import pytest

from phi4.processing.tool_json import CALL_BEGIN, CALL_END
from phi4.processing.tool_parser import CallsFinished, ParserEvent, TextDelta, ToolCallParser
from phi4.processing.tool_stream import CallFollower, ToolCallDelta

ONE = '{"name": "f", "arguments": {"a": [1, {"b": "}]\\""}], "c": "x, y: z"}}'
TWO = '{"name": "größe", "arguments": {}}'


def events(pieces: Iterable[str], names: tuple[str, ...] = ("f", "größe")) -> list[ParserEvent]:
    parser = ToolCallParser(names, stream=True)
    return [event for piece in pieces for event in parser.push(piece)] + parser.flush()


def text_of(found: Iterable[ParserEvent]) -> str:
    return "".join(event.text for event in found if isinstance(event, TextDelta))


def calls_of(found: Iterable[ParserEvent]) -> list[tuple[str, str, str]]:
    """Id, name and arguments as a client that adds up the pieces sees them."""
    calls: dict[int, tuple[str, str, str]] = {}
    for event in found:
        if isinstance(event, ToolCallDelta):
            identity, name, arguments = calls.get(event.index, ("", "", ""))
            assert (event.index in calls) == (not event.id and not event.name)
            calls[event.index] = (identity + event.id, name + event.name, arguments + event.arguments)
    assert list(calls) == list(range(len(calls)))
    return list(calls.values())


def finished(found: Iterable[ParserEvent]) -> int:
    return sum(len(event.calls) for event in found if isinstance(event, CallsFinished))


def arguments_in(call: str) -> str:
    return call[call.index('"arguments": ') + len('"arguments": ') : -1]


@pytest.mark.parametrize("closing", [CALL_END, ""])
@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_pieces_joined_are_what_the_model_wrote(closing: str, step: int) -> None:
    text = f"Yes. {CALL_BEGIN}[{ONE}, {TWO}]{closing}"
    found = events(text[at : at + step] for at in range(0, len(text), step))
    assert calls_of(found) == [("call_0", "f", arguments_in(ONE)), ("call_1", "größe", arguments_in(TWO))]
    assert finished(found) == 2 and text_of(found) == "Yes. "


def test_arguments_are_shown_before_the_call_is_finished() -> None:
    parser = ToolCallParser(["f"], stream=True)
    assert parser.push(CALL_BEGIN + '[{"name": "f", "argu') == []
    assert parser.push('ments": {"x"') == [ToolCallDelta(0, "call_0", "f", '{"x"')]
    assert parser.push(': "kit') == [ToolCallDelta(0, arguments=': "kit')]
    assert parser.push('chen"}') == [ToolCallDelta(0, arguments='chen"}')]
    (last,) = parser.push("}]" + CALL_END)
    assert isinstance(last, CallsFinished) and last.calls[0].arguments == {"x": "kitchen"}


def test_text_before_a_call_comes_before_its_pieces() -> None:
    found = events([f"One moment. {CALL_BEGIN}[{ONE}]"])
    assert [type(event) for event in found] == [TextDelta, ToolCallDelta, CallsFinished]


WHOLE = {
    "bare list": (f"[{ONE}]", {"a": [1, {"b": '}]"'}], "c": "x, y: z"}),
    "functools": (f"functools[{ONE}]", {"a": [1, {"b": '}]"'}], "c": "x, y: z"}),
    "markers spelled out": (f"<|tool_call|>[{ONE}]", {"a": [1, {"b": '}]"'}], "c": "x, y: z"}),
    "fenced": (f"```json\n{ONE}\n```", {"a": [1, {"b": '}]"'}], "c": "x, y: z"}),
    "arguments as text": (CALL_BEGIN + '[{"name": "f", "arguments": "{\\"x\\": 1}"}]', {"x": 1}),
    "arguments first": (CALL_BEGIN + '[{"arguments": {"x": 1}, "name": "f"}]', {"x": 1}),
    "wrapped": (
        CALL_BEGIN + '[{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]',
        {"x": 1},
    ),
    "no arguments": (CALL_BEGIN + '[{"name": "f", "arguments": null}]', {}),
}


@pytest.mark.parametrize("case", WHOLE)
@pytest.mark.parametrize("step", [1, 1000])
def test_a_call_in_another_form_comes_whole_at_its_end(case: str, step: int) -> None:
    text, arguments = WHOLE[case]
    found = events(text[at : at + step] for at in range(0, len(text), step))
    ((identity, name, written),) = calls_of(found)
    assert (identity, name, json.loads(written)) == ("call_0", "f", arguments)
    assert finished(found) == 1


def test_the_key_parameters_and_an_object_without_a_list_stream_too() -> None:
    found = events(
        CALL_BEGIN + '[{"name": "f", "parameters": {"x": 1}}] {"name": "f", "arguments": {}}' + CALL_END
    )
    assert calls_of(found) == [("call_0", "f", '{"x": 1}'), ("call_1", "f", "{}")]


def test_numbers_go_on_behind_earlier_calls() -> None:
    found = events([f"{CALL_BEGIN}[{ONE}]\n[{TWO}]{CALL_END} functools[{TWO}]"])
    assert [call[0] for call in calls_of(found)] == ["call_0", "call_1", "call_2"]


@pytest.mark.parametrize("length", range(len('[{"name": "f", "arguments": {') + 1, 78))
def test_a_call_cut_off_by_the_end_is_neither_text_nor_finished(length: int) -> None:
    text = f"{CALL_BEGIN}[{ONE}, {TWO}"[:length]
    found = events(text)
    assert text_of(found) == "" and finished(found) == 0
    assert arguments_in(ONE).startswith(calls_of(found)[0][2])


def test_a_native_call_cut_off_before_any_arguments_is_nothing() -> None:
    assert events(CALL_BEGIN + '[{"name": "f", "argum') == []


def test_a_native_call_that_turns_out_broken_is_not_shown_twice() -> None:
    found = events(CALL_BEGIN + '[{"name": "f", "arguments": {"x": 1] no')
    assert text_of(found) == "] no" and calls_of(found)[0][2].startswith('{"x": 1')
    assert finished(found) == 0


def test_a_name_that_cannot_be_sent_is_never_given_out() -> None:
    found = events(CALL_BEGIN + '[{"name": "\\ud800", "arguments": {}}]')
    assert calls_of(found) == [] and finished(found) == 0


def test_without_stream_nothing_but_text_and_finished_calls_comes() -> None:
    parser = ToolCallParser(["f"])
    assert [type(event) for event in parser.push(f"ok {CALL_BEGIN}[{ONE}]")] == [TextDelta, CallsFinished]


HOSTILE = {
    "a list of numbers": CALL_BEGIN + '[{"name": "f", "arguments": {"a": [',
    "one long string": CALL_BEGIN + '[{"name": "f", "arguments": {"a": "',
    "one long name": CALL_BEGIN + '[{"name": "',
}


@pytest.mark.parametrize("case", HOSTILE)
def test_following_twice_as_much_takes_twice_the_work(case: str) -> None:
    """Counted as lines of Python executed in the follower."""

    def lines(length: int) -> int:
        count = 0

        def trace(frame: Any, event: str, _: Any) -> Any:
            nonlocal count
            if frame.f_code.co_filename != CallFollower.push.__code__.co_filename:
                return None
            count += 1
            return trace

        text = HOSTILE[case] + ("1," if case == "a list of numbers" else "\\n") * (length // 2)
        previous = sys.gettrace()
        sys.settrace(trace)
        try:
            events(text[at : at + 5] for at in range(0, len(text), 5))
        finally:
            sys.settrace(previous)
        return count

    small, large = lines(4000), lines(8000)
    assert large <= 2.3 * small + 200
