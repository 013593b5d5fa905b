"""Tool definitions and tool calls as text: what a prompt shows about functions the model may call.

`normalise_tools` accepts the JSON-schema form (bare, or wrapped as `{"type": "function", ...}`) and
the short form of the model card, where `parameters` maps argument names to `{description, type,
default}`. The prompt shows each definition in the form and key order it was given, without `strict`, which
is said to whoever checks arguments; `ToolSpec.parameters` is always a JSON schema, for doing that.

Left out on purpose: running tools, and parsing the model's calls (`tool_parser`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from phi4.errors import InvalidRequest
from phi4.types import ToolCall, ToolSpec

MAX_TOOLS = 128
MAX_SCHEMA_DEPTH = 64
_NAME = re.compile(r"[\w.\-]{1,128}")
_JSON_TYPES = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
    "dict": "object",
}


def normalise_tools(tools: Iterable[ToolSpec | Mapping[str, Any]]) -> tuple[ToolSpec, ...]:
    """Bring tool definitions of either form into `ToolSpec`s.

    Args:
        tools: Definitions; a `ToolSpec` passes through.

    Raises:
        InvalidRequest: A definition has no valid name, a wrong type, or appears twice.
    """
    specs = tuple(
        tool if isinstance(tool, ToolSpec) else _spec(tool, index) for index, tool in enumerate(tools)
    )
    if len(specs) > MAX_TOOLS:
        raise InvalidRequest(f"{len(specs)} tools given, at most {MAX_TOOLS} are possible; offer fewer")
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest(f"tool {name!r} is defined more than once; give each tool its own name")
    return specs


def render_tools(tools: Sequence[ToolSpec | Mapping[str, Any]]) -> str:
    """Render definitions as the JSON list that stands between `<|tool|>` and `<|/tool|>`."""
    return _json([_definition(spec) for spec in normalise_tools(tools)], "tools")


def render_tool_calls(calls: Sequence[ToolCall]) -> str:
    """Render calls as the JSON list that stands between `<|tool_call|>` and `<|/tool_call|>`."""
    listed = [{"name": call.name, "arguments": dict(call.arguments)} for call in calls]
    return _json(listed, "tool call arguments")


def _json(value: Any, what: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"{what} cannot be written as JSON ({error}); use plain JSON values") from None


def _definition(spec: ToolSpec) -> Mapping[str, Any]:
    if spec.definition is not None:
        return {key: value for key, value in spec.definition.items() if key != "strict"}
    return {"name": spec.name, "description": spec.description, "parameters": dict(spec.parameters)}


def _spec(tool: Any, index: int) -> ToolSpec:
    where = f"tools[{index}]"
    if not isinstance(tool, Mapping):
        raise InvalidRequest(
            f"{where} is a {type(tool).__name__}, it must be an object with name and parameters"
        )
    if "function" in tool:
        if tool.get("type", "function") != "function" or not isinstance(tool["function"], Mapping):
            raise InvalidRequest(f"{where}.type is {tool.get('type')!r}; only 'function' tools are possible")
        tool = tool["function"]
    name, description = tool.get("name"), tool.get("description", "")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidRequest(f"{where}.name is {name!r}; use 1 to 128 letters, digits, '_', '-' or '.'")
    if not isinstance(description, str):
        raise InvalidRequest(f"{where}.description is {description!r}; it must be text")
    parameters = tool.get("parameters") or {}
    if not isinstance(parameters, Mapping):
        raise InvalidRequest(f"{where}.parameters is {parameters!r}; it must be an object")
    if _deeper_than(tool, MAX_SCHEMA_DEPTH):
        raise InvalidRequest(f"{where} is nested deeper than {MAX_SCHEMA_DEPTH} levels; make it flatter")
    schema = dict(parameters) if _is_schema(parameters) else _schema_from_short(parameters, where)
    return ToolSpec(name, description, schema, dict(tool))


def _deeper_than(value: Any, limit: int) -> bool:
    """Measure nesting level by level, so that a hostile definition cannot exhaust the stack."""
    layer = [value]
    for _ in range(limit + 1):
        layer = [
            child
            for item in layer
            for child in (item.values() if isinstance(item, Mapping) else item)
            if isinstance(child, Mapping | list | tuple)
        ]
        if not layer:
            return False
    return True


def _is_schema(parameters: Mapping[str, Any]) -> bool:
    """A JSON schema says `"type": "object"` or has `properties` whose entries are schemas themselves."""
    if isinstance(parameters.get("type"), str):
        return True
    properties = parameters.get("properties")
    return isinstance(properties, Mapping) and all(
        isinstance(entry, Mapping) for entry in properties.values()
    )


def _schema_from_short(parameters: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`{city: {type: "str", default}}` -> JSON schema; an argument without default is required."""
    properties: dict[str, Any] = {}
    for name, entry in parameters.items():
        if not isinstance(entry, Mapping):
            raise InvalidRequest(f"{where}.parameters.{name} is {entry!r}; it must be an object with a type")
        properties[name] = {
            key: _json_type(value) if key == "type" else value for key, value in entry.items()
        }
    required = [name for name, entry in parameters.items() if "default" not in entry]
    return {"type": "object", "properties": properties, "required": required}


def _json_type(name: Any) -> Any:
    """`str` -> string, `List[int]` -> array; what is already a JSON type, or unknown, stays."""
    if not isinstance(name, str):
        return name
    head = name.split(",")[0].split("[")[0].strip()
    return _JSON_TYPES.get(head.lower(), head)
