"""Without `strict`, what the compiler cannot do is passed over and the rest of the schema is held to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from phi4.engine.structured import lenient
from phi4.engine.structured.compiler import GrammarCompiler
from phi4.engine.structured.lenient import without_impossible
from phi4.engine.structured.spec import GrammarSpec
from phi4.errors import InvalidRequest
from phi4.testing.writing import Writer

# As zod writes an e-mail address.
EMAIL = r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
LOOKS = {"type": "string", "pattern": EMAIL}


def about(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}, "required": ["a"], **more}


def spec(schema: Any, strict: bool = False) -> GrammarSpec:
    return GrammarSpec("json_schema", json.dumps(schema), strict)


# Schema, what it then takes, what it still does not.
PASSED: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "look-around": (about(LOOKS), {"a": "x"}, {"a": 1}),
    "look-around beside a format": (about({**LOOKS, "format": "email"}), {"a": "b@c.de"}, {"a": "x"}),
    "a back reference": (about({"type": "string", "pattern": r"(a)\1"}), {"a": "b"}, {"a": None}),
    "a word boundary": (about({"type": "string", "pattern": r"\ba\b"}), {"a": "b"}, {"a": None}),
    "in a list": (about({"type": "array", "items": LOOKS}), {"a": ["x"]}, {"a": [1]}),
    "behind a reference": (about({"$ref": "#/$defs/m"}, **{"$defs": {"m": LOOKS}}), {"a": "x"}, {"a": 1}),
    "one of two": (
        {"type": "object", "properties": {"a": LOOKS, "b": {"type": "string", "pattern": "^x$"}}},
        {"a": "y", "b": "x"},
        {"a": "y", "b": "y"},
    ),
    "names with look-around": (
        {
            "type": "object",
            "patternProperties": {"^(?=x)": {"type": "string"}},
            "additionalProperties": False,
        },
        {"xy": 1},
        [],
    ),
    "required, but not let in": (
        {"type": "object", "properties": {"a": {}}, "required": ["b"], "additionalProperties": False},
        {"a": 1, "b": 2},
        {"a": 1},
    ),
}


@pytest.mark.parametrize("case", PASSED)
def test_what_cannot_be_done_is_passed_over_and_the_rest_is_held_to(
    compiler: GrammarCompiler, writer: Writer, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    schema, fits, fails = PASSED[case]
    assert writer.can_say(compiler.compile(spec(schema)), json.dumps(fits))
    assert not writer.can_say(compiler.compile(spec(schema)), json.dumps(fails))
    assert "passed over" in caplog.text and EMAIL not in caplog.text


@pytest.mark.parametrize("case", PASSED)
def test_strict_says_what_cannot_be_done(compiler: GrammarCompiler, case: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be used"):
        compiler.compile(spec(PASSED[case][0], strict=True))


def test_what_is_wrong_in_itself_stays_an_error(compiler: GrammarCompiler) -> None:
    for schema in (about({"type": "str"}), about({"enum": []}), about({**LOOKS, "minLength": "x"})):
        with pytest.raises(InvalidRequest, match="cannot be used"):
            compiler.compile(spec(schema))


def test_values_and_names_that_look_like_keywords_are_not_touched() -> None:
    schema = {
        "properties": {"pattern": {"type": "string"}, "required": {"pattern": "(?=a)"}},
        "enum": [{"pattern": "(?=a)"}],
        "default": {"pattern": "(?=a)"},
        "additionalProperties": True,
        "required": ["x"],
    }
    loose, passed = without_impossible(schema, lambda pattern: "(?" not in pattern)
    assert loose == {**schema, "properties": {"pattern": {"type": "string"}, "required": {}}}
    assert passed == {"pattern": 1}


def test_each_pattern_is_tried_once_and_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lenient, "MAX_PATTERNS", 3)
    asked: list[str] = []

    def works(pattern: str) -> bool:
        asked.append(pattern)
        return False

    schema = {"anyOf": [{"pattern": str(at % 5)} for at in range(20)]}
    loose, passed = without_impossible(schema, works)
    assert asked == ["0", "1", "2"] and passed == {"pattern": 12}
    assert [entry for entry in loose["anyOf"] if entry] == [{"pattern": "3"}, {"pattern": "4"}] * 4
