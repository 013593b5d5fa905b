"""However an answer is cut into pieces, the parser finds the same calls and shows the same text."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from phi4.processing.tool_json import CALL_BEGIN, CALL_END
from phi4.processing.tool_parser import ToolCallParser, join_events, parse_tool_calls

ATOMS = [
    *("functools", "[", "]", "{", "}", '"name"', '"arguments"', ": ", '"f"', ",", "\n", " ", "\t", "\r\n"),
    *(
        CALL_BEGIN,
        CALL_END,
        "```",
        "```json\n",
        "`",
        "<|tool_call|>",
        "<|/tool_call|>",
        "<|",
        "x",
        '"',
        "\\",
        "1",
        "true",
        "你",
    ),
    '{"name": "f", "arguments": {}}',
    '[{"name": "f", "arguments": {"a": [1, {"b": "]}"}]}}, {"name": "g", "parameters": "{}"}]',
]
ANSWER = st.lists(st.sampled_from(ATOMS), max_size=14).map("".join)
CUTS = st.lists(st.integers(1, 9), max_size=40)

JSON_VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
TEXT_KEY = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
CALL = st.tuples(st.text("abc_", min_size=1, max_size=8), st.dictionaries(TEXT_KEY, JSON_VALUE, max_size=3))


@settings(max_examples=600)
@given(
    answer=ANSWER,
    cuts=CUTS,
    names=st.sampled_from([None, ("f",), ()]),
    dialects=st.booleans(),
    most=st.sampled_from([None, 1]),
)
def test_cuts_do_not_matter(
    answer: str, cuts: list[int], names: tuple[str, ...] | None, dialects: bool, most: int | None
) -> None:
    def start() -> ToolCallParser:
        return ToolCallParser(names, dialects=dialects, most=most)

    whole = join_events([*(parser := start()).push(answer), *parser.flush()])
    assert not {CALL_BEGIN, CALL_END}.intersection(whole.text)
    for sizes in ([*cuts, 1000], [1] * len(answer)):
        parser, events, position = start(), [], 0
        for size in sizes:
            events += parser.push(answer[position : position + size])
            position += size
        assert join_events([*events, *parser.flush()]) == whole


@settings(max_examples=300)
@given(text=st.text())
def test_no_text_makes_the_parser_fail_or_lose_characters(text: str) -> None:
    parsed = parse_tool_calls(text)
    assert parsed.calls or parsed.text == text


@settings(max_examples=300)
@given(
    calls=st.lists(CALL, min_size=1, max_size=3),
    frame=st.sampled_from(
        [
            f"{CALL_BEGIN}{{}}{CALL_END}",
            "functools{}",
            "<|tool_call|>{}<|/tool_call|>",
            "{}",
            "```json\n{}\n```",
        ]
    ),
    indent=st.sampled_from([None, 2]),
    ascii_only=st.booleans(),
)
def test_every_list_of_calls_comes_back(
    calls: list[tuple[str, dict[str, object]]], frame: str, indent: int | None, ascii_only: bool
) -> None:
    listed = [{"name": name, "arguments": arguments} for name, arguments in calls]
    answer = frame.replace("{}", json.dumps(listed, indent=indent, ensure_ascii=ascii_only))
    parsed = parse_tool_calls(answer)
    assert [(call.name, call.arguments) for call in parsed.calls] == calls
    assert parsed.text == ""
