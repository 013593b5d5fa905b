"""Tool definitions in both forms: shown as given, understood as JSON schema."""

from __future__ import annotations

from typing import Any

import pytest

from phi4.errors import InvalidRequest
from phi4.processing.tools import normalise_tools, render_tool_calls, render_tools
from phi4.types import ToolCall, ToolSpec

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
FUNCTION = {"name": "get_weather", "description": "Forecast.", "parameters": SCHEMA}
SHORT = {
    "name": "get_weather",
    "description": "Forecast.",
    "parameters": {
        "city": {"description": "Where.", "type": "str"},
        "days": {"description": "How many.", "type": "int", "default": 3},
        "tags": {"type": "List[str]"},
    },
}


@pytest.mark.parametrize("tool", [FUNCTION, {"type": "function", "function": FUNCTION}])
def test_schema_form_is_kept(tool: dict[str, Any]) -> None:
    (spec,) = normalise_tools([tool])
    assert (spec.name, spec.description, spec.parameters) == ("get_weather", "Forecast.", SCHEMA)


def test_short_form_becomes_a_schema() -> None:
    (spec,) = normalise_tools([SHORT])
    assert spec.parameters == {
        "type": "object",
        "properties": {
            "city": {"description": "Where.", "type": "string"},
            "days": {"description": "How many.", "type": "integer", "default": 3},
            "tags": {"type": "array"},
        },
        "required": ["city", "tags"],
    }


@pytest.mark.parametrize("argument", ["type", "properties", "required"])
def test_arguments_named_like_schema_words_are_arguments(argument: str) -> None:
    (spec,) = normalise_tools([{"name": "f", "parameters": {argument: {"type": "str"}}}])
    assert spec.parameters["properties"] == {argument: {"type": "string"}}


def test_the_prompt_shows_the_given_form_and_key_order() -> None:
    reordered = {"parameters": {}, "name": "g", "description": "größer"}
    first, second = (
        '{"name": "f", "parameters": {"x": {"type": "str"}}}',
        '{"parameters": {}, "name": "g", "description": "größer"}',
    )
    shown = f"[{first}, {second}]"
    tools = [{"name": "f", "parameters": {"x": {"type": "str"}}}, {"type": "function", "function": reordered}]
    assert render_tools(tools) == shown
    assert render_tools(normalise_tools(tools)) == shown, "specs remember the form they were given in"


def test_a_spec_made_by_hand_is_shown_as_schema() -> None:
    spec = ToolSpec("f", "does", {"type": "object"})
    assert render_tools([spec]) == '[{"name": "f", "description": "does", "parameters": {"type": "object"}}]'


def test_calls_are_rendered_as_a_list() -> None:
    calls = [ToolCall("f", {"a": "ü", "b": [1.5, None]}), ToolCall("g", {})]
    assert render_tool_calls(calls) == (
        '[{"name": "f", "arguments": {"a": "ü", "b": [1.5, null]}}, {"name": "g", "arguments": {}}]'
    )


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"type": "object", "x": value}
    return {"name": "f", "parameters": value}


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        (["f"], r"tools\[0\] is a str"),
        ([{"description": "x"}], "name is None"),
        ([{"name": "a b"}], "name is 'a b'"),
        ([{"name": "x" * 129}], "1 to 128"),
        ([{"name": "f", "description": 7}], "description is 7"),
        ([{"name": "f", "parameters": [1]}], "parameters is"),
        ([{"name": "f", "parameters": {"x": "str"}}], "parameters.x is 'str'"),
        ([{"type": "retrieval", "function": {}}], "'retrieval'"),
        ([{"name": "f"}, {"name": "f"}], "'f' is defined more than once"),
        ([{"name": f"f{i}"} for i in range(129)], "129 tools"),
        ([nested(65)], "deeper than 64"),
        ([nested(100_000)], "deeper than 64"),
    ],
)
def test_bad_definitions_are_refused(tools: list[Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        normalise_tools(tools)


def test_the_model_is_not_shown_that_a_tool_is_strict() -> None:
    plain = {"name": "f", "parameters": {"strict": {"type": "bool"}}}
    assert render_tools([{**plain, "strict": True}]) == render_tools([plain])


def test_definitions_that_are_no_json_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="tools cannot be written as JSON"):
        render_tools([{"name": "f", "parameters": {"x": {"type": "str", "default": {1, 2}}}}])
