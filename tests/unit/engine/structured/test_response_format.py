"""Each form of `response_format` becomes the grammar it means; broken ones are refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from phi4.engine.structured.response_format import response_grammar
from phi4.engine.structured.spec import GrammarSpec
from phi4.errors import InvalidRequest

SCHEMA = {"type": "object", "properties": {"größe": {"type": "integer"}}}
TEXT = json.dumps(SCHEMA, ensure_ascii=False)

FORMS: dict[str, tuple[dict[str, Any] | None, GrammarSpec | None]] = {
    "nothing": (None, None),
    "text": ({"type": "text"}, None),
    "object": ({"type": "json_object", "unknown": 1}, GrammarSpec("json_object")),
    "schema": (
        {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
        GrammarSpec("json_schema", TEXT, strict=False),
    ),
    "strict schema": (
        {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
        GrammarSpec("json_schema", TEXT),
    ),
    "schema beside its type": (
        {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True},
        GrammarSpec("json_schema", TEXT),
    ),
    "regex": ({"type": "regex", "regex": "a+"}, GrammarSpec("regex", "a+")),
    "choice": ({"type": "choice", "choice": ["a", "ä"]}, GrammarSpec("choice", '["a", "ä"]')),
    "grammar": ({"type": "grammar", "grammar": 'start: "a"'}, GrammarSpec("lark", 'start: "a"')),
}


@pytest.mark.parametrize("case", FORMS)
def test_a_form_is_understood(case: str) -> None:
    value, spec = FORMS[case]
    assert response_grammar(value) == spec


BROKEN: dict[str, tuple[Any, str]] = {
    "unknown type": ({"type": "yaml"}, "'yaml'; valid are text, json_object"),
    "no type": ({}, "'None'; valid are"),
    "a string": ("json_object", "'json_object'; valid are"),
    "schema missing": ({"type": "json_schema", "json_schema": {"name": "n"}}, "schema is missing"),
    "schema as text": ({"type": "json_schema", "json_schema": {"schema": "{}"}}, "schema is str"),
    "wrapper as text": ({"type": "json_schema", "json_schema": "{}"}, "must be an object"),
    "regex as a number": ({"type": "regex", "regex": 1}, "regex is int; give text"),
    "grammar missing": ({"type": "grammar"}, "grammar is missing; give text"),
    "choice as text": ({"type": "choice", "choice": "a"}, "choice is str; give a list"),
    "schema with a set": ({"type": "json_schema", "schema": {"enum": {1}}}, "no JSON"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_form_is_refused(case: str) -> None:
    value, why = BROKEN[case]
    with pytest.raises(InvalidRequest, match=why):
        response_grammar(value)
