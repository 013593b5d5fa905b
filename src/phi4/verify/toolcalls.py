"""Checks tool calls: are the arguments what the function's schema allows, and is it the expected call?

The part of JSON schema that tool definitions use is checked here: type, enum, minimum, maximum,
required, properties, items. Anything else in a schema is ignored rather than guessed at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phi4.types import ToolCall, ToolSpec

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (Mapping,),
    "array": (list, tuple),
    "null": (type(None),),
}


def check_arguments(schema: Mapping[str, Any], value: Any, where: str = "arguments") -> tuple[str, ...]:
    """Returns what is wrong with `value` under `schema`, one sentence each; empty when it fits.

    Args:
        schema: A JSON schema.
        value: A parsed JSON value.
        where: Name of the value in the sentences.
    """
    kind = schema.get("type")
    allowed = _TYPES.get(kind) if isinstance(kind, str) else None
    if allowed and (not isinstance(value, allowed) or (isinstance(value, bool) and kind != "boolean")):
        return (f"{where} must be of type {kind}, got {value!r}",)
    wrong: list[str] = []
    if "enum" in schema and value not in schema["enum"]:
        wrong.append(f"{where} must be one of {list(schema['enum'])}, got {value!r}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        if "minimum" in schema and value < schema["minimum"]:
            wrong.append(f"{where} must be at least {schema['minimum']}, got {value!r}")
        if "maximum" in schema and value > schema["maximum"]:
            wrong.append(f"{where} must be at most {schema['maximum']}, got {value!r}")
    if isinstance(value, Mapping):
        wrong += _check_object(schema, value, where)
    if isinstance(value, list | tuple) and "items" in schema:
        for number, item in enumerate(value):
            wrong += check_arguments(schema["items"], item, f"{where}[{number}]")
    return tuple(wrong)


def _check_object(schema: Mapping[str, Any], value: Mapping[str, Any], where: str) -> list[str]:
    properties: Mapping[str, Any] = schema.get("properties", {})
    wrong = [f"{where} lacks {name!r}" for name in schema.get("required", ()) if name not in value]
    for name, item in value.items():
        if name in properties:
            wrong += check_arguments(properties[name], item, f"{where}.{name}")
        elif properties:
            wrong.append(f"{where} has an unknown field {name!r}; valid are {', '.join(properties)}")
    return wrong


def check_call(call: ToolCall, tools: Sequence[ToolSpec]) -> tuple[str, ...]:
    """Returns what is wrong with a call given the tools on offer; empty when it could be run."""
    for tool in tools:
        if tool.name == call.name:
            return check_arguments({"type": "object", **tool.parameters}, call.arguments)
    return (f"no tool {call.name!r}; valid are {', '.join(tool.name for tool in tools) or 'none'}",)


def same_call(expected: ToolCall, got: ToolCall) -> bool:
    """Whether two calls do the same: equal names and equal arguments, whatever their order or id."""
    return expected.name == got.name and _same_value(expected.arguments, got.arguments)


def _same_value(first: Any, second: Any) -> bool:
    """Equality of JSON values; unlike Python's, true is not 1, while 20 is still 20.0."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(_same_value(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(_same_value, first, second))
    return isinstance(first, bool) == isinstance(second, bool) and bool(first == second)
