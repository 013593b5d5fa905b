"""Every dialect of calls is understood, everything else stays visible text, and work is linear."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pytest

from phi4.processing.tool_json import CALL_BEGIN, CALL_END, JsonScanner
from phi4.processing.tool_openings import find_opening
from phi4.processing.tool_parser import (
    CallsFinished,
    ParsedAnswer,
    TextDelta,
    ToolCallParser,
    join_events,
    parse_tool_calls,
)
from phi4.processing.tool_stream import ToolCallDelta
from phi4.types import ToolCall

LIST = '[{"name": "f", "arguments": {"rooms": ["a", ["b]"]], "n": 1.5}}]'
ARGUMENTS = {"rooms": ["a", ["b]"]], "n": 1.5}
OBJECT = LIST[1:-1]

DIALECTS = {
    "functools": (f"functools{LIST}", ""),
    "native": (f"{CALL_BEGIN}{LIST}{CALL_END}", ""),
    "native after text": (f"I will.{CALL_BEGIN}\n{LIST}\n{CALL_END} Done.", "I will. Done."),
    "native, end missing": (f"{CALL_BEGIN}{LIST}", ""),
    "markers spelled out": (f"<|tool_call|>{LIST}<|/tool_call|>", ""),
    "markers spelled out, with white space": (f"<|tool_call|>\n{LIST}\n<|/tool_call|>", ""),
    "end marker missing": (f"<|tool_call|>{LIST}", ""),
    "bare list": (LIST, ""),
    "bare object": (f"  {OBJECT}", "  "),
    "after text": (f"I will do that.\n{LIST}", "I will do that.\n"),
    "functools inside a line": (f"Sure: functools{LIST} done", "Sure:  done"),
    "code fence": (f"```json\n{LIST}\n```", ""),
    "code fence without a language": (f"Here:\n```\n{OBJECT}\n```\nok", "Here:\n\nok"),
    "key parameters": ('{"name": "f", "parameters": {"rooms": ["a", ["b]"]], "n": 1.5}}', ""),
    "arguments as text": (
        '[{"name": "f", "arguments": "{\\"rooms\\": [\\"a\\", [\\"b]\\"]], \\"n\\": 1.5}"}]',
        "",
    ),
    "wrapped in function": (f'[{{"id": "x", "type": "function", "function": {OBJECT}}}]', ""),
}


@pytest.mark.parametrize("case", DIALECTS)
def test_dialect_is_understood(case: str) -> None:
    text, rest = DIALECTS[case]
    parsed = parse_tool_calls(text, ["f"])
    assert [(call.name, call.arguments) for call in parsed.calls] == [("f", ARGUMENTS)]
    assert parsed.text == rest


@pytest.mark.parametrize("separator", ["", "\n", "\n\n"])
def test_several_calls_keep_their_order(separator: str) -> None:
    one, two = '{"name": "f", "arguments": {"i": 1}}', '{"name": "g", "arguments": {}}'
    parsed = parse_tool_calls(f"<|tool_call|>[{one}, {two}]{separator}{one}<|/tool_call|>")
    assert [(call.name, call.id) for call in parsed.calls] == [
        ("f", "call_0"),
        ("g", "call_1"),
        ("f", "call_2"),
    ]


NO_CALLS = {
    "plain text": "Use a[0] and {x}; see [this](that).",
    "link at a line start": "[this](that)\n[1] note",
    "JSON answer": '{"answer": 3, "name": "f"}',
    "JSON list": "[1, 2, 3]",
    "nested lists": "[[1], [2]]",
    "empty list": "functools[]",
    "object without arguments": '{"name": "f"}',
    "unknown name in bare JSON": '[{"name": "other", "arguments": {}}]',
    "bare JSON inside a line": 'say {"name": "f", "arguments": {}}',
    "one of two is no call": '[{"name": "f", "arguments": {}}, {"name": 7}]',
    "call syntax of another model": '<|tool_call|>f(x="1")<|/tool_call|>',
    "tag of another model": '<tool_call>{"name": "f", "arguments": {}}</tool_call>',
    "indexing": "functools[0] is the first",
    "unfinished": 'functools[{"name": "f", "arguments": {',
    "wrong bracket": '[{"name": "f", "arguments": {]}}]',
    "missing comma": '[{"name": "f" "arguments": {}}]',
    "trailing comma": '[{"name": "f", "arguments": {}},]',
    "single quotes": "functools[{'name': 'f', 'arguments': {}}]",
    "arguments as a list": '[{"name": "f", "arguments": [1]}]',
    "arguments as broken text": '[{"name": "f", "arguments": "{"}]',
    "name that is empty": '[{"name": "", "arguments": {}}]',
    "not a number": '[{"name": "f", "arguments": {"x": NaN}}]',
    "number out of range": '[{"name": "f", "arguments": {"x": 1e999}}]',
    "whole number without end": '[{"name": "f", "arguments": {"x": ' + "9" * 5000 + "}}]",
    "lone surrogate": '[{"name": "f", "arguments": {"x": "\\ud800"}}]',
    "line break in a string": '[{"name": "f\n", "arguments": {}}]',
    "nested too deeply": '[{"name": "f", "arguments": {"x": ' + "[" * 70 + "]" * 70 + "}}]",
    "text arguments nested without end": '[{"name": "f", "arguments": "' + "[" * 200_000 + '"}]',
    "fence of code": "```python\nprint([1])\n```",
    "lone markers": "<|tool_call|><|/tool_call|> functools ` ``",
}


@pytest.mark.parametrize("case", NO_CALLS)
def test_what_is_no_call_stays_visible(case: str) -> None:
    assert parse_tool_calls(NO_CALLS[case], ["f"]) == ParsedAnswer(NO_CALLS[case], ())


NATIVE_REMAINS = {
    "nothing else": ("", ""),
    "an end without a beginning": (f"a{CALL_END}b", "ab"),
    "an empty call": (f"a{CALL_BEGIN}{CALL_END}b", "ab"),
    "call syntax of another model": (f'{CALL_BEGIN}f(x="1"){CALL_END}', 'f(x="1")'),
    "an end inside a string": (f'{CALL_BEGIN}[{{"name": "f{CALL_END}', '[{"name": "f'),
    "a beginning inside a string": (f'[{{"name": "f{CALL_BEGIN}', '[{"name": "f'),
    "an end behind a backslash": (f'functools[{{"name": "\\{CALL_END}"', 'functools[{"name": "\\"'),
    "cut off": (f'a{CALL_BEGIN}[{{"name": "f", "arguments": {{"x"', "a"),
    "cut off after the beginning": (f"a{CALL_BEGIN}\n", "a"),
}


@pytest.mark.parametrize("case", NATIVE_REMAINS)
@pytest.mark.parametrize("dialects", [True, False])
def test_control_tokens_never_show_whatever_stands_between_them(case: str, dialects: bool) -> None:
    text, rest = NATIVE_REMAINS[case]
    for step in (1, 1000):
        parser, found = ToolCallParser(["f"], dialects=dialects), []
        for start in range(0, len(text), step):
            found += parser.push(text[start : start + step])
        assert join_events([*found, *parser.flush()]) == ParsedAnswer(rest, ())


@pytest.mark.parametrize("case", DIALECTS)
def test_without_dialects_only_native_calls_are_calls(case: str) -> None:
    text, rest = DIALECTS[case]
    parser = ToolCallParser(["f"], dialects=False)
    found = join_events([*parser.push(text), *parser.flush()])
    native = case.startswith("native")
    assert (len(found.calls), found.text) == ((1, rest) if native else (0, text))


@pytest.mark.parametrize("case", DIALECTS)
def test_what_a_judge_refuses_is_text_once_unless_it_is_native(case: str) -> None:
    text, rest = DIALECTS[case]
    asked: list[str] = []

    def refuse(calls: Sequence[ToolCall]) -> bool:
        asked.extend(call.name for call in calls)
        return False

    parser = ToolCallParser(["f"], stream=True, judge=refuse)
    events = [event for letter in text for event in parser.push(letter)] + parser.flush()
    shown, native = join_events(events), case.startswith("native")
    assert (len(shown.calls), shown.text) == ((1, rest) if native else (0, text))
    assert asked == ([] if native else ["f"])
    assert native or all(isinstance(event, TextDelta) for event in events), "nothing was given out before"


TWO_CALLS = '[{"name": "f", "arguments": {}}, {"name": "f", "arguments": {"n": 2}}]'


@pytest.mark.parametrize(
    "text",
    [
        f"{CALL_BEGIN}{TWO_CALLS}{CALL_END}",
        f"functools{TWO_CALLS}",
        TWO_CALLS,
        f"functools{TWO_CALLS}{CALL_BEGIN}{TWO_CALLS}{CALL_END}",
        TWO_CALLS[1:-1].replace(", {", "\n{"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_of_calls_beyond_the_most_nothing_is_left(text: str, stream: bool) -> None:
    asked: list[int] = []

    def fits(calls: Sequence[ToolCall]) -> bool:
        asked.append(len(calls))
        return True

    parser = ToolCallParser(["f"], stream=stream, judge=fits, most=1)
    events = [event for letter in text for event in parser.push(letter)] + parser.flush()
    assert join_events(events).calls == (ToolCall("f", {}, "call_0"),)
    assert not join_events(events).text.strip() and set(asked) <= {1}
    pieces = [event for event in events if isinstance(event, ToolCallDelta)]
    assert "".join(piece.arguments for piece in pieces) == ("{}" if stream else "")


def test_marked_calls_count_even_for_unknown_names() -> None:
    """The caller can then answer that there is no such tool, instead of showing markup."""
    (call,) = parse_tool_calls('functools[{"name": "__import__", "arguments": null}]', ["f"]).calls
    assert (call.name, call.arguments) == ("__import__", {})


def test_bare_json_counts_for_any_name_when_names_are_not_known() -> None:
    assert parse_tool_calls('{"name": "größe", "arguments": {}}').calls[0].name == "größe"


def test_after_broken_markup_a_good_call_is_still_found() -> None:
    parsed = parse_tool_calls(f"functools[oops\n{LIST}")
    assert (parsed.text, len(parsed.calls)) == ("functools[oops\n", 1)


def test_text_streams_and_only_possible_calls_are_held_back() -> None:
    parser = ToolCallParser(["f"])
    assert parser.push("Good mor") == [TextDelta("Good mor")]
    assert parser.push("ning func") == [TextDelta("ning ")]
    assert parser.push("tion\n") == [TextDelta("function\n")]
    assert parser.push('{"answer": ') == [TextDelta('{"answer": ')], "no call begins with this key"
    assert parser.push(f"1}}\n{LIST[:-1]}") == [TextDelta("1}\n")]
    (event,) = parser.push("]")
    assert isinstance(event, CallsFinished) and event.calls[0].name == "f"
    assert parser.flush() == []


HOSTILE = {
    "brackets": "[",
    "marked brackets": "functools[",
    "strings": 'functools["',
    "keys": '\n{"name',
    "fences": "\n```",
    "back quotes": "`",
    "calls": '{"name": "f", "arguments": {}}\n',
    "spaces": " ",
    "unfinished call": '<|tool_call|>[{"name": "',
    "unfinished native call": f'{CALL_BEGIN}[{{"name": "',
    "control tokens": CALL_BEGIN + CALL_END,
    "escapes": '[{"name\\\\',
}


@pytest.mark.parametrize("case", HOSTILE)
def test_work_doubles_when_the_answer_doubles(case: str) -> None:
    """Counted as lines of Python executed in the parser's own modules, for whole and for split input."""

    def lines(text: str, step: int) -> int:
        count = 0
        parts = (JsonScanner.scan, ToolCallParser.push, find_opening)
        files = {part.__code__.co_filename for part in parts}

        def trace(frame: Any, event: str, _: Any) -> Any:
            nonlocal count
            if frame.f_code.co_filename not in files:
                return None
            count += 1
            return trace

        previous = sys.gettrace()
        sys.settrace(trace)
        try:
            parser = ToolCallParser(["f"])
            for start in range(0, len(text), step):
                parser.push(text[start : start + step])
            parser.flush()
        finally:
            sys.settrace(previous)
        return count

    atom = HOSTILE[case]
    for step in (7, 10**9):
        small, large = (lines(atom * (size // len(atom)), step) for size in (4000, 8000))
        assert large <= 2.3 * small + 200


def test_a_megabyte_of_brackets_is_text() -> None:
    text = "[" * 1_000_000
    assert join_events([*(parser := ToolCallParser()).push(text), *parser.flush()]) == ParsedAnswer(text, ())


def test_ten_thousand_calls_are_read() -> None:
    text = "functools[" + ", ".join(['{"name": "f", "arguments": {}}'] * 10_000) + "]"
    assert len(parse_tool_calls(text).calls) == 10_000
