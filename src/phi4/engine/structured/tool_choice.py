"""Tools and `tool_choice` of a request: what the prompt shows, which calls are looked for, what may be said.

    plan = plan_tools(tools, "auto")
    plan.shown       # what the prompt shows
    plan.names       # which calls are looked for in the answer
    plan.grammar     # GrammarSpec or None

Each tool's schema of arguments becomes part of one schema of a list of calls (`tool_grammar.ToolRules`), so
its references to itself are moved along.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from phi4.engine.structured.lenient import with_required
from phi4.engine.structured.schema_edit import edited
from phi4.engine.structured.spec import GrammarLimits, GrammarSpec, check_schema_size
from phi4.engine.structured.tool_grammar import ToolRules
from phi4.errors import InvalidRequest
from phi4.processing.tools import normalise_tools
from phi4.types import ToolSpec

ToolChoice = str | Mapping[str, Any]
# With one of these beside `properties`, the properties are not all an object may have.
_OPEN = frozenset(("allOf", "anyOf", "oneOf", "$ref", "patternProperties", "additionalProperties"))


@dataclass(frozen=True)
class ToolPlan:
    """What tools and `tool_choice` mean for one request.

    Attributes:
        shown: Tools the prompt shows.
        names: Names whose calls are looked for in the answer; empty = the answer is text.
        grammar: Form of the answer; None = any.
    """

    shown: tuple[ToolSpec, ...] = ()
    names: tuple[str, ...] = ()
    grammar: GrammarSpec | None = None


def plan_tools(
    tools: Iterable[ToolSpec | Mapping[str, Any]],
    choice: ToolChoice | None = None,
    *,
    parallel: bool = True,
    answer: GrammarSpec | None = None,
    limits: GrammarLimits | None = None,
) -> ToolPlan:
    """Decide what is shown and what may be said.

    Args:
        tools: Functions on offer, in either form `normalise_tools` takes.
        choice: "auto" (also None): the model decides. "none": no tool is shown or called. "required": the
            answer is one or more calls. An object that names a function: the answer is one call of it.
        parallel: False = at most one call in an answer.
        answer: Form of the answer where it is no call.
        limits: What one grammar may ask for.

    Raises:
        InvalidRequest: A tool is broken, or the choice is unknown, names no tool on offer or needs tools.
    """
    specs = normalise_tools(tools)
    mode, name = _mode(choice, specs)
    if mode == "none" or not specs:
        return ToolPlan(grammar=answer)
    callable_ = [spec for spec in specs if name is None or spec.name == name]
    entries = [
        (spec.name, _arguments_schema(spec, index, limits or GrammarLimits()))
        for index, spec in enumerate(callable_)
    ]
    strict = any((spec.definition or {}).get("strict") is True for spec in callable_)
    rules = ToolRules(tuple(entries), mode == "required", parallel and name is None, strict, answer)
    return ToolPlan(specs, tuple(spec.name for spec in specs), GrammarSpec("tool_calls", rules.to_text()))


def _mode(choice: ToolChoice | None, tools: tuple[ToolSpec, ...]) -> tuple[str, str | None]:
    """The word "auto", "none" or "required", and the one tool that may be called, if one was named."""
    names = [tool.name for tool in tools]
    if choice is None:
        return "auto", None
    if isinstance(choice, str) and choice in ("auto", "none"):
        return choice, None
    name: str | None = None
    if isinstance(choice, Mapping) and choice.get("type") == "function":
        named = choice["function"] if isinstance(choice.get("function"), Mapping) else choice
        name = str(named.get("name"))
        if name not in names:
            offered = ", ".join(names) or "none"
            raise InvalidRequest(f"tool_choice names {name[:80]!r}; tools on offer are: {offered}")
    elif choice != "required":
        raise InvalidRequest(
            f"tool_choice is {str(choice)[:80]!r}; give 'none', 'auto', 'required' or "
            "{'type': 'function', 'function': {'name': ...}}"
        )
    if not names:
        raise InvalidRequest("tool_choice is 'required', but no tools are given; give some")
    return "required", name


def _arguments_schema(tool: ToolSpec, index: int, limits: GrammarLimits) -> dict[str, Any]:
    """The schema of a tool's arguments, to stand at `#/$defs/<index>` of a larger one.

    Arguments that neither `properties` nor `required` names are refused unless the schema says something
    about them.
    """
    what = f"parameters of tool {tool.name!r}"
    check_schema_size(tool.parameters, limits, what)
    schema: dict[str, Any] = {"type": "object", **(tool.parameters or {"properties": {}})}
    kind = schema["type"]
    if kind != "object" and not (isinstance(kind, list) and "object" in kind):
        raise InvalidRequest(f"the type of {what} is {str(kind)[:80]!r}; it must be 'object'")
    schema["type"] = "object"
    for key in ("$schema", "$id"):
        schema.pop(key, None)
    if "properties" in schema and not _OPEN.intersection(schema):
        schema = {**with_required(schema), "additionalProperties": False}
    moved = edited(schema, partial(_moved, f"#/$defs/{index}"))
    assert isinstance(moved, dict)
    return moved


def _moved(root: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A schema that refers to the root (`#`, `#/$defs/X`) made to mean `root`."""
    target = schema.get("$ref")
    if isinstance(target, str) and target.startswith("#"):
        schema["$ref"] = root + target[1:]
    return schema
