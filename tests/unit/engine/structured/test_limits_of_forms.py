"""Limits of the forms of answers, each by itself; what hostile forms cost is measured in `test_attacks`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from phi4.engine.structured.compiler import GrammarCompiler
from phi4.engine.structured.spec import GrammarKind, GrammarLimits, GrammarSpec
from phi4.errors import InvalidRequest

LIMITS = GrammarLimits()


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def properties(count: int) -> dict[str, Any]:
    return {f"p{number}": {"type": "null"} for number in range(count)}


OVER: dict[str, tuple[GrammarKind, Any, str]] = {
    "nesting": ("json_schema", nested(LIMITS.max_depth + 1), "nested deeper than 64"),
    "enum": ("json_schema", {"enum": list(range(LIMITS.max_values + 1))}, "enum values, at most"),
    "properties": (
        "json_schema",
        {"properties": properties(LIMITS.max_properties + 1)},
        "properties, at most",
    ),
    "patterns": (
        "json_schema",
        {"patternProperties": properties(LIMITS.max_patterns + 1)},
        "patternProperties, at most",
    ),
    "periods": ("json_schema", {"type": "integer", "multipleOf": 20_011}, "fall together every 20011 steps"),
    "choices": ("choice", [str(number) for number in range(LIMITS.max_values + 1)], "give a list of 1 to"),
    "bytes": ("json_schema", {"description": "x" * LIMITS.max_bytes}, "bytes, at most"),
    "groups": ("regex", "(" * 65 + "a" + ")" * 65, "nests groups deeper than 64"),
    "letters": ("regex", "a" * (LIMITS.max_regex_chars + 1), "characters, at most 8192"),
    "rules": ("lark", 'start: "a"\n' + "//:\n" * LIMITS.max_rules, "over 2000 rules"),
    "letters of a grammar": ("lark", "//" + "x" * LIMITS.max_lark_bytes, "bytes, at most"),
}


@pytest.mark.parametrize("case", OVER)
def test_a_form_over_a_limit_is_refused_before_it_is_compiled(compiler: GrammarCompiler, case: str) -> None:
    kind, form, why = OVER[case]
    text = form if isinstance(form, str) else json.dumps(form)
    with pytest.raises(InvalidRequest, match=why):
        compiler.compile(GrammarSpec(kind, text))


def test_compiling_has_a_budget_of_work(make_compiler: Callable[..., GrammarCompiler]) -> None:
    spec = GrammarSpec("regex", r"(\p{L}|\p{N}|\p{S}){1,2000}")
    assert make_compiler().compile(spec).allowed() is not None
    with pytest.raises(InvalidRequest, match="too big"):
        make_compiler(limits=GrammarLimits(lexer_fuel=50)).compile(spec)
