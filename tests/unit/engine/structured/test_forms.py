"""Whatever a model would like to say, what it says has the form that was asked for."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable

import numpy as np
import pytest

from phi4.engine.structured.compiler import GrammarCompiler, compile_grammar
from phi4.engine.structured.constraint import first_reason
from phi4.engine.structured.spec import GrammarLimits, GrammarSpec
from phi4.errors import InvalidRequest, MissingExtra
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.testing.writing import Writer
from phi4.verify.toolcalls import check_arguments

SCHEMA = {
    "type": "object",
    "properties": {
        "room": {"type": "string", "enum": ["kitchen", "hall"]},
        "on": {"type": "boolean"},
        "level": {"type": "integer", "minimum": 0, "maximum": 100},
        "names": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 2},
    },
    "required": ["room", "on"],
    "additionalProperties": False,
}
SUM = """
start: sum
sum: NUMBER (("+" | "-") NUMBER)+
NUMBER: /[0-9]{1,3}/
"""
ODD_CHOICES = [
    "yes",
    "no",
    'a "quoted" one',
    "back\\slash",
    "two\nlines",
    "(a|b)*",
    "größe",
    "😀",
    "a/b",
    "yes!",
]


def schema_spec(schema: object, strict: bool = True) -> GrammarSpec:
    return GrammarSpec("json_schema", json.dumps(schema), strict)


def test_any_json_object_is_one(compiler: GrammarCompiler, writer: Writer) -> None:
    said = [writer.babble(compiler.compile(GrammarSpec("json_object")), seed) for seed in range(40)]
    whole = [json.loads(text) for text in said if text is not None]
    assert len(whole) >= 30 and all(isinstance(value, dict) for value in whole)
    assert any(whole), "some object holds something"


def test_answers_fit_their_schema(compiler: GrammarCompiler, writer: Writer) -> None:
    said = [writer.babble(compiler.compile(schema_spec(SCHEMA)), seed) for seed in range(40)]
    whole = [json.loads(text) for text in said if text is not None]
    assert len(whole) >= 35
    for value in whole:
        assert check_arguments(SCHEMA, value) == ()
        assert all(len(name) <= 4 for name in value.get("names", ()))
    assert len({json.dumps(value) for value in whole}) > 5, "the schema leaves a choice"


def test_answers_match_their_expression(compiler: GrammarCompiler, writer: Writer) -> None:
    spec = GrammarSpec("regex", r"(?:[A-Z][a-z]{1,3} ){2}\d{2}/\d{2}")
    for seed in range(20):
        said = writer.babble(compiler.compile(spec), seed)
        assert said is not None and re.fullmatch(spec.text, said, re.ASCII)


def test_answers_follow_a_lark_grammar(compiler: GrammarCompiler, writer: Writer) -> None:
    for seed in range(20):
        said = writer.babble(compiler.compile(GrammarSpec("lark", SUM)), seed)
        assert said is not None and re.fullmatch(r"\d{1,3}([+-]\d{1,3})+", said)


def test_a_choice_is_one_of_the_strings_letter_by_letter(compiler: GrammarCompiler, writer: Writer) -> None:
    spec = GrammarSpec("choice", json.dumps(ODD_CHOICES))
    said = {writer.babble(compiler.compile(spec), seed) for seed in range(60)}
    assert said <= set(ODD_CHOICES) and len(said) > 4
    for choice in ODD_CHOICES:
        assert writer.can_say(compiler.compile(spec), choice), choice
    assert not writer.can_say(compiler.compile(spec), "a")
    assert not writer.can_say(compiler.compile(spec), "yesno")


@pytest.mark.parametrize(
    "text",
    [
        '{"room": "kitchen", "on": true}',
        '{"room":"hall","on":false,"level":42}',
        '{\n  "room": "hall",\n  "on": true\n}',
    ],
)
def test_an_answer_that_fits_anyway_stays_as_the_model_would_write_it(
    compiler: GrammarCompiler, writer: Writer, text: str
) -> None:
    assert writer.can_say(compiler.compile(schema_spec(SCHEMA)), text)


@pytest.mark.parametrize(
    "text",
    [
        '{"room": "cellar"',
        '{"on"',
        '{"room": "hall", "on": 1',
        '{"room": "hall", "on": true, "extra"',
        "[",
        "Sure",
    ],
)
def test_what_does_not_fit_cannot_be_said(compiler: GrammarCompiler, writer: Writer, text: str) -> None:
    grammar = compiler.compile(schema_spec(SCHEMA))
    assert not all(writer.say(grammar, writer.tokenizer.encode_text(text)))


@pytest.mark.parametrize("indent", [None, 0, 1, 4, "\t"])
def test_json_may_be_written_on_one_line_or_on_many(
    compiler: GrammarCompiler, writer: Writer, indent: int | str | None
) -> None:
    value = {"a": [{"b": {"c": [1, 2, []]}}, {}], "d": None}
    grammar = compiler.compile(GrammarSpec("json_object"))
    assert writer.can_say(grammar, json.dumps(value, indent=indent))


def test_white_space_ends_somewhere(compiler: GrammarCompiler, writer: Writer) -> None:
    """A model that likes blanks best still gets through."""
    for begin, blank, most in (("{", " ", 1), ("{\n", " ", 40), ("{", "\n", 1)):
        grammar = compiler.compile(schema_spec(SCHEMA))
        assert all(writer.say(grammar, writer.tokenizer.encode_text(begin)))
        (token,) = writer.tokenizer.encode_text(blank)
        assert [writer.say(grammar, [token])[0] for _ in range(most + 1)] == [True] * most + [False]


@pytest.mark.parametrize("lark", ["start: <[*]>+", "start: ANY\nANY: ~/x/", "start: <[^5]>"])
def test_no_grammar_lets_a_control_token_through(
    compiler: GrammarCompiler, small_tokenizer: Phi4Tokenizer, lark: str
) -> None:
    grammar = compiler.compile(GrammarSpec("lark", lark))
    others = [i for i in small_tokenizer.control_ids if i not in small_tokenizer.tokens.stop_ids]
    for _ in range(3):
        mask = grammar.allowed()
        assert mask is not None and mask.any()
        assert not mask[others].any() and not mask[small_tokenizer.vocab_size :].any()
        grammar.accept(int(np.argmax(mask)))
        if grammar.finished:
            break


def test_a_way_that_only_a_control_token_leads_on_ends_with_an_error(
    compiler: GrammarCompiler, writer: Writer
) -> None:
    grammar = compiler.compile(GrammarSpec("lark", 'start: "a" <|user|> | "b"'))
    assert all(writer.say(grammar, writer.tokenizer.encode_text("a")))
    with pytest.raises(InvalidRequest, match="no text this model can write"):
        grammar.allowed()


def test_a_mask_has_an_entry_for_every_logit(compiler: GrammarCompiler, writer: Writer) -> None:
    mask = compiler.compile(GrammarSpec("json_object")).allowed()
    assert mask is not None and mask.shape == (writer.vocab_size,) and mask.dtype == np.bool_


def test_the_answer_is_finished_when_only_its_end_may_follow(
    compiler: GrammarCompiler, writer: Writer
) -> None:
    grammar = compiler.compile(GrammarSpec("choice", '["on", "onto"]'))
    tokens = writer.tokenizer.tokens
    assert all(writer.say(grammar, writer.tokenizer.encode_text("on")))
    mask = grammar.allowed()
    assert not grammar.finished and mask is not None and mask[list(tokens.stop_ids)].all()
    assert mask.sum() > len(tokens.stop_ids), "it may go on"
    grammar = compiler.compile(GrammarSpec("choice", '["on", "off"]'))
    assert all(writer.say(grammar, writer.tokenizer.encode_text("off")))
    mask = grammar.allowed()
    assert grammar.finished and mask is not None
    assert np.flatnonzero(mask).tolist() == sorted(tokens.stop_ids)


def test_answers_under_one_grammar_know_nothing_of_each_other(
    compiler: GrammarCompiler, writer: Writer
) -> None:
    spec = schema_spec(SCHEMA)
    ids = writer.tokenizer.encode_text('{"room": "kitchen", "on": true, "level": 7}')
    alone = [compiler.compile(spec) for _ in range(2)]
    for at, token in enumerate(ids):  # the second runs three tokens behind the first
        assert all(writer.say(alone[0], [token]))
        if at >= 3:
            assert all(writer.say(alone[1], [ids[at - 3]]))
    assert all(writer.say(alone[1], ids[-3:]))
    first, second = (grammar.allowed() for grammar in alone)
    assert first is not None and second is not None and np.array_equal(first, second)


REFUSED = {
    "unknown kind": (GrammarSpec("yaml", "x"), "valid are json_object"),  # type: ignore[arg-type]
    "empty": (GrammarSpec("regex", ""), "needs a text"),
    "text where none belongs": (GrammarSpec("json_object", "{}"), "takes no text"),
    "schema that is no JSON": (GrammarSpec("json_schema", "{'a': 1}"), "no valid JSON"),
    "schema that is a list": (GrammarSpec("json_schema", "[1]"), "give an object"),
    "schema of an unknown type": (schema_spec({"type": "str"}), "json_schema grammar cannot be used"),
    "schema keyword that cannot be enforced": (
        schema_spec({"type": "object", "unevaluatedProperties": False}),
        "unevaluatedProperties",
    ),
    "schema nothing fits": (
        schema_spec({"type": "string", "minLength": 3, "maxLength": 1}),
        "cannot be used",
    ),
    "remote reference": (schema_spec({"$ref": "http://127.0.0.1:1/x"}), "cannot be used"),
    "file reference": (schema_spec({"$ref": "file:///etc/passwd"}), "cannot be used"),
    "not a number": (GrammarSpec("json_schema", '{"const": NaN}'), "NaN is not JSON"),
    "endless number": (GrammarSpec("json_schema", '{"const": 1e999}'), "too large"),
    "lone surrogate": (GrammarSpec("regex", "\ud800"), "lone surrogate"),
    "escaped lone surrogate": (GrammarSpec("json_schema", '{"const": "\\ud800"}'), "no valid JSON"),
    "broken expression": (GrammarSpec("regex", "a("), "regex grammar cannot be used"),
    "look-around": (GrammarSpec("regex", "(?=a)b"), "regex grammar cannot be used"),
    "broken grammar": (GrammarSpec("lark", "start: ("), "lark grammar cannot be used"),
    "grammar without a start": (GrammarSpec("lark", 'other: "a"'), "lark grammar cannot be used"),
    "grammar of control tokens alone": (
        GrammarSpec("lark", "start: <|user|>"),
        "no text this model can write",
    ),
    "choices that are no list": (GrammarSpec("choice", '{"a": 1}'), "give a list"),
    "no choices": (GrammarSpec("choice", "[]"), "give a list"),
    "empty choice": (GrammarSpec("choice", '["a", ""]'), "at least one character"),
    "choice that is a number": (GrammarSpec("choice", "[1]"), "at least one character"),
    "home-made tool calls": (GrammarSpec("tool_calls", "{}"), "made by plan_tools"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_broken_grammar_is_refused_and_the_message_says_why(compiler: GrammarCompiler, case: str) -> None:
    spec, why = REFUSED[case]
    with pytest.raises(InvalidRequest) as caught:
        compiler.compile(spec)
    message = str(caught.value)
    assert why in message
    assert len(message) < 500 and "\n" not in message and ".rs" not in message and "0x" not in message


def test_without_strict_a_keyword_that_cannot_be_enforced_is_passed_over(
    compiler: GrammarCompiler, caplog: pytest.LogCaptureFixture
) -> None:
    compiler.compile(schema_spec({"type": "object", "unevaluatedProperties": False}, strict=False))
    assert "unevaluatedProperties" in caplog.text
    compiler.compile(schema_spec({"type": "string", "format": "what a client wrote"}, strict=False))
    assert "Unknown format" in caplog.text and "what a client wrote" not in caplog.text


def test_a_schema_cannot_choose_options_of_the_compiler(compiler: GrammarCompiler, writer: Writer) -> None:
    loose = {**SCHEMA, "x-guidance": {"whitespace_pattern": r"[x]*", "lenient": True}}
    assert not writer.can_say(compiler.compile(schema_spec(loose)), '{xx"room": "hall", "on": true}')


def test_the_same_text_is_compiled_once(make_compiler: Callable[..., GrammarCompiler]) -> None:
    compiler = make_compiler()
    for _ in range(3):
        compiler.compile(schema_spec(SCHEMA))
    compiler.compile(GrammarSpec("json_object"))
    assert compiler.num_cached == 2


def test_the_cache_stays_within_its_bytes(make_compiler: Callable[..., GrammarCompiler]) -> None:
    compiler = make_compiler(cache_bytes=2 << 20)
    for number in range(50):
        compiler.compile(schema_spec({**SCHEMA, "title": f"number {number}"}))
    assert 1 <= compiler.num_cached <= 8


def test_a_grammar_that_hits_a_limit_on_the_way_fails_its_own_answer_and_is_forgotten(
    make_compiler: Callable[..., GrammarCompiler], writer: Writer
) -> None:
    compiler = make_compiler(limits=GrammarLimits(lexer_states=60))
    grammar = compiler.compile(schema_spec(SCHEMA))
    with pytest.raises(InvalidRequest, match="cannot be followed") as caught:
        writer.babble(grammar, 0)
        for seed in range(1, 20):
            writer.babble(compiler.compile(schema_spec(SCHEMA)), seed)
    assert compiler.num_cached == 0
    assert "kitchen" not in str(caught.value), "nothing of the grammar or the answer"


def test_a_loop_need_not_wait_for_a_compile(make_compiler: Callable[..., GrammarCompiler]) -> None:
    compiler = make_compiler()
    good, bad = compiler.begin(schema_spec(SCHEMA)), compiler.begin(GrammarSpec("regex", "a("))
    assert good.result(30).allowed() is not None
    assert isinstance(bad.exception(30), InvalidRequest)
    compiler.close()
    compiler.close()


def test_what_a_panic_says_about_this_machine_is_not_shown() -> None:
    assert "main.rs" not in first_reason("panic: oh\n<backtrace>\n 0: /src/main.rs:3\n</backtrace>")
    assert first_reason("bad\n  <backtrace> /src/main.rs") == "bad"
    assert len(first_reason("x " * 1000)) == 300


def test_without_llguidance_the_message_names_the_extra(
    small_tokenizer: Phi4Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtra, match=r"'\.\[serve\]'"):
        compile_grammar(GrammarSpec("json_object"), small_tokenizer)
