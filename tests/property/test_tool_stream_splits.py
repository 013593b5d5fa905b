"""Pieces of calls, joined, are one JSON object equal to the finished call's, however the answer is cut."""

from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from phi4.processing.tool_json import CALL_BEGIN
from phi4.processing.tool_parser import CallsFinished, TextDelta, ToolCallParser
from phi4.processing.tool_stream import ToolCallDelta

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-999, 999) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
CALLS = st.lists(
    st.tuples(WORDS.filter(bool), st.dictionaries(WORDS, VALUES, max_size=3)), min_size=1, max_size=3
)


@settings(max_examples=150)
@given(
    calls=CALLS,
    opening=st.sampled_from([CALL_BEGIN, "<|tool_call|>", "functools"]),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
    cuts=st.sets(st.integers(1, 400), max_size=12),
)
def test_pieces_of_calls_make_up_the_calls(
    calls: list[tuple[str, dict[str, Any]]],
    opening: str,
    ascii_only: bool,
    indent: int | None,
    cuts: set[int],
) -> None:
    listed = [{"name": name, "arguments": arguments} for name, arguments in calls]
    text = opening + json.dumps(listed, ensure_ascii=ascii_only, indent=indent)
    if indent and opening == "functools":
        text = text.replace("functools[\n", "functools[", 1)
    edges = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    parser = ToolCallParser([], stream=True)
    joined: dict[int, str] = {}
    names: list[str] = []
    finished: list[tuple[str, Any]] = []
    for low, high in itertools.pairwise(edges):
        for event in parser.push(text[low:high]):
            assert not isinstance(event, TextDelta)
            if isinstance(event, ToolCallDelta):
                joined[event.index] = joined.get(event.index, "") + event.arguments
                names += [event.name] if event.name else []
            elif isinstance(event, CallsFinished):
                finished += [(call.name, dict(call.arguments)) for call in event.calls]
    assert parser.flush() == []
    assert finished == calls
    assert [(name, json.loads(joined[at])) for at, name in enumerate(names)] == calls
