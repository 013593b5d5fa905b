"""What an answer must look like, as a request says it, and what is refused before anything is compiled.

    GrammarSpec("json_schema", '{"type": "object", "properties": {"room": {"type": "string"}}}')

A `GrammarSpec` is two strings and a flag: it crosses processes and is a key of caches. The checks here find,
in linear time, what would cost the native compiler much time, memory or stack. What a spec means is decided
in `compiler`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, get_args

from phi4.errors import InvalidRequest

GrammarKind = Literal["json_object", "json_schema", "regex", "lark", "choice", "tool_calls"]


@dataclass(frozen=True)
class GrammarSpec:
    """The form of an answer.

    Attributes:
        kind: "json_object" any JSON object; "json_schema" JSON that fits a schema; "regex" the whole answer
            matches an expression (Rust syntax, no look-around, digits are 0 to 9); "lark" a grammar in
            llguidance's Lark dialect; "choice" one of given strings; "tool_calls" made by
            `tool_choice.plan_tools`.
        text: The schema, expression or grammar; for "choice" a JSON list of strings; for "json_object" empty.
        strict: JSON schemas: True = a keyword that cannot be enforced is an error, False = it is passed over.
    """

    kind: GrammarKind
    text: str = ""
    strict: bool = True


@dataclass(frozen=True)
class GrammarLimits:
    """How much one grammar may ask for.

    Attributes:
        max_bytes: Of a schema, of a list of choices and of all tools together, UTF-8.
        max_lark_bytes: Of a Lark grammar, UTF-8.
        max_rules: Colons in a Lark grammar, which bounds rules and how long a chain of them can be.
        max_regex_chars: Of an expression.
        max_depth: Nesting of a schema's JSON and of groups in an expression.
        max_values: Entries of all `enum` lists of a schema, or choices.
        max_properties: Properties of one object of a schema.
        max_patterns: `patternProperties` of a schema, all together: each is compared with each other one.
        max_period: Product of all different `multipleOf`, factors 2 and 5 taken out: states of an automaton.
        max_grammar_size: Symbols in productions after compiling.
        lexer_fuel: Work of building the lexer; about 50,000 units a millisecond.
        step_fuel: Work of the lexer for one token; about 14,000 units a millisecond.
        step_items: Items of the parser for one token; about 20,000 a millisecond.
        row_items: Items of the parser at one place; an object takes four for each property it may leave out.
        lexer_states: States of the lexer; each takes 1 to 2 kB.
    """

    max_bytes: int = 256 * 1024
    max_lark_bytes: int = 64 * 1024
    max_rules: int = 2000
    max_regex_chars: int = 8192
    max_depth: int = 64
    max_values: int = 10_000
    max_properties: int = 1000
    max_patterns: int = 100
    max_period: int = 20_000
    max_grammar_size: int = 200_000
    lexer_fuel: int = 500_000
    step_fuel: int = 200_000
    step_items: int = 50_000
    row_items: int = 5000
    lexer_states: int = 20_000


def check_kind(spec: GrammarSpec) -> None:
    """Refuse a spec of an unknown kind or without valid text.

    Raises:
        InvalidRequest: The kind is unknown, the text is none or has no UTF-8 form, or a kind that takes no
            text has one.
    """
    kinds = get_args(GrammarKind)
    if spec.kind not in kinds:
        raise InvalidRequest(f"the grammar kind is {spec.kind!r}; valid are {', '.join(kinds)}")
    if not isinstance(spec.text, str):
        raise InvalidRequest(
            f"the text of a {spec.kind} grammar is a {type(spec.text).__name__}; give a string"
        )
    try:
        spec.text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"the text of a {spec.kind} grammar has a lone surrogate at {error.start}; give valid Unicode"
        ) from None
    if (spec.kind == "json_object") == bool(spec.text):
        needs = "takes no text" if spec.text else "needs a text, and it is empty"
        raise InvalidRequest(f"a {spec.kind} grammar {needs}")


def checked_schema(text: str, limits: GrammarLimits) -> dict[str, Any]:
    """The JSON schema that `text` spells.

    Raises:
        InvalidRequest: No JSON object, or over a limit.
    """
    schema = _json(text, "the JSON schema", limits)
    if not isinstance(schema, dict):
        raise InvalidRequest(f"the JSON schema is {_shown(schema)}; give an object")
    check_schema_size(schema, limits)
    return schema


def check_schema_size(
    schema: Mapping[str, Any], limits: GrammarLimits, what: str = "the JSON schema"
) -> None:
    """Measure a schema without trusting it: its nesting, and what the compiler takes long over.

    Raises:
        InvalidRequest: It is nested too deeply or has too much of something.
    """
    objects = _objects(schema, limits.max_depth, what)
    enums = [entry["enum"] for entry in objects if isinstance(entry.get("enum"), list | tuple)]
    _at_most(limits.max_values, sum(map(len, enums)), f"{what} has", "enum values")
    for key, limit in (("properties", limits.max_properties), ("patternProperties", limits.max_patterns)):
        maps = [entry[key] for entry in objects if isinstance(entry.get(key), Mapping)]
        most = sum(map(len, maps)) if key == "patternProperties" else max(map(len, maps), default=0)
        _at_most(limit, most, f"{what} has", key)
    period = math.prod({_period(entry["multipleOf"]) for entry in objects if "multipleOf" in entry})
    _at_most(limits.max_period, period, f"the multipleOf of {what} fall together every", "steps")


def _at_most(limit: int, count: int, what: str, unit: str) -> None:
    if count > limit:
        raise InvalidRequest(f"{what} {str(count)[:20]} {unit}, at most {limit} are possible")


def _objects(schema: Mapping[str, Any], max_depth: int, what: str) -> list[Mapping[str, Any]]:
    """All objects in a schema, level by level, so that no nesting can exhaust the stack."""
    found: list[Mapping[str, Any]] = []
    layer: list[Any] = [schema]
    for _ in range(max_depth + 1):
        found += [item for item in layer if isinstance(item, Mapping)]
        entries = (item.values() if isinstance(item, Mapping) else item for item in layer)
        layer = [entry for some in entries for entry in some if isinstance(entry, Mapping | list | tuple)]
        if not layer:
            return found
    raise InvalidRequest(f"{what} is nested deeper than {max_depth} levels; make it flatter")


def _period(step: Any) -> int:
    """How many remainders an automaton has to tell apart for `multipleOf`: what is left without 2 and 5."""
    if isinstance(step, bool) or not isinstance(step, int | float) or not math.isfinite(step) or not step:
        return 1  # the compiler says what is wrong with it
    rest = abs(Fraction(repr(step)).numerator)
    for factor in (2, 5):
        while rest % factor == 0:
            rest //= factor
    return rest


def checked_choices(text: str, limits: GrammarLimits) -> tuple[str, ...]:
    """The strings that `text`, a JSON list, names.

    Raises:
        InvalidRequest: No list of strings that have at least one character, or over a limit.
    """
    choices = _json(text, "the list of choices", limits)
    most = limits.max_values
    if not isinstance(choices, list) or not 1 <= len(choices) <= most:
        raise InvalidRequest(f"choices are {_shown(choices)}; give a list of 1 to {most} strings")
    for choice in choices:
        if not isinstance(choice, str) or not choice:
            raise InvalidRequest(f"a choice is {_shown(choice)}; give text of at least one character")
    return tuple(dict.fromkeys(choices))


def checked_regex(text: str, limits: GrammarLimits) -> str:
    """An expression of bearable size.

    Raises:
        InvalidRequest: Over a limit.
    """
    if len(text) > limits.max_regex_chars:
        raise InvalidRequest(
            f"the regex has {len(text)} characters, at most {limits.max_regex_chars} are possible"
        )
    if _group_depth(text) > limits.max_depth:
        raise InvalidRequest(f"the regex nests groups deeper than {limits.max_depth} levels; make it flatter")
    return text


def checked_lark(text: str, limits: GrammarLimits) -> str:
    """A Lark grammar of bearable size.

    Raises:
        InvalidRequest: Over a limit.
    """
    num_bytes, num_rules = len(text.encode()), text.count(":")
    if num_bytes > limits.max_lark_bytes:
        raise InvalidRequest(
            f"the grammar has {num_bytes} bytes, at most {limits.max_lark_bytes} are possible"
        )
    if num_rules > limits.max_rules:
        raise InvalidRequest(
            f"the grammar has {num_rules} colons, which is over {limits.max_rules} rules; make it smaller"
        )
    return text


def _group_depth(regex: str) -> int:
    """Most groups that may be open at once; brackets inside character classes count too, without harm."""
    depth = deepest = 0
    escaped = False
    for char in regex:
        if escaped or char == "\\":
            escaped = not escaped
        elif char == "(":
            depth += 1
            deepest = max(deepest, depth)
        elif char == ")":
            depth -= 1
    return deepest


def _json(text: str, what: str, limits: GrammarLimits) -> Any:
    num_bytes = len(text.encode())
    if num_bytes > limits.max_bytes:
        raise InvalidRequest(f"{what} has {num_bytes} bytes, at most {limits.max_bytes} are possible")
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()  # an escaped lone surrogate would fail later
    except RecursionError:
        raise InvalidRequest(f"{what} is nested too deeply to be read; make it flatter") from None
    except ValueError as error:
        raise InvalidRequest(f"{what} is no valid JSON ({str(error)[:120]}); correct it") from None
    return value


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _shown(value: Any) -> str:
    text = ascii(value) if not isinstance(value, list) else f"a list of {len(value)}"
    return text if len(text) <= 80 else text[:77] + "..."
