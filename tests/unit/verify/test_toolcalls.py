"""Tool calls are checked against their schema; equality is that of JSON, not of Python."""

from __future__ import annotations

import re
from typing import Any

import pytest

from phi4.types import ToolCall, ToolSpec
from phi4.verify.toolcalls import check_arguments, check_call, same_call

SCHEMA = {
    "type": "object",
    "properties": {
        "room": {"type": "string", "enum": ["kitchen", "hall"]},
        "percent": {"type": "integer", "minimum": 0, "maximum": 100},
        "tags": {"type": "array", "items": {"type": "string"}},
        "on": {"type": "boolean"},
    },
    "required": ["room"],
}
TOOLS = (ToolSpec("light", "", SCHEMA), ToolSpec("free", "", {}))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "arguments lacks 'room'"),
        ({"room": "attic"}, r"arguments.room must be one of \['kitchen', 'hall'\], got 'attic'"),
        ({"room": 3}, "arguments.room must be of type string, got 3"),
        ({"room": "hall", "percent": 101}, "percent must be at most 100, got 101"),
        ({"room": "hall", "percent": -1}, "percent must be at least 0, got -1"),
        ({"room": "hall", "percent": True}, "percent must be of type integer, got True"),
        ({"room": "hall", "percent": "50"}, "percent must be of type integer, got '50'"),
        ({"room": "hall", "tags": ["a", 2]}, r"tags\[1\] must be of type string"),
        ({"room": "hall", "colour": "red"}, "unknown field 'colour'; valid are room, percent, tags, on"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(arguments: dict[str, Any], words: str) -> None:
    (problem,) = check_call(ToolCall("light", arguments), TOOLS)
    assert re.search(words, problem), problem


def test_a_fitting_call_has_no_problems() -> None:
    call = ToolCall("light", {"room": "hall", "percent": 50, "tags": ["a"], "on": False})
    assert check_call(call, TOOLS) == ()
    assert check_call(ToolCall("free", {"anything": [1, {"x": None}]}), TOOLS) == ()


def test_an_unknown_tool_lists_the_valid_ones() -> None:
    assert check_call(ToolCall("lamp", {}), TOOLS) == ("no tool 'lamp'; valid are light, free",)


def test_unknown_types_in_a_schema_are_not_guessed_at() -> None:
    assert check_arguments({"type": "colour"}, 3) == ()


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        ({"a": 20}, {"a": 20.0}, True),
        ({"a": True}, {"a": 1}, False),
        ({"a": False}, {"a": 0}, False),
        ({"a": "1"}, {"a": 1}, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": [1, {"b": True}]}, {"a": [1, {"b": 1}]}, False),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"a": 1}, {"a": 1, "b": None}, False),
    ],
)
def test_equality_is_that_of_json(first: dict[str, Any], second: dict[str, Any], equal: bool) -> None:
    assert same_call(ToolCall("f", first, "1"), ToolCall("f", second, "2")) is equal


def test_calls_of_different_functions_differ() -> None:
    assert not same_call(ToolCall("f", {}), ToolCall("g", {}))
