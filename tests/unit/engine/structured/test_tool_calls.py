"""Once a call begins it is a call of a tool on offer, with arguments that fit; and tool_choice is obeyed."""

from __future__ import annotations

import json
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from phi4.engine.structured import constraint
from phi4.engine.structured.compiler import GrammarCompiler
from phi4.engine.structured.spec import GrammarSpec
from phi4.engine.structured.tool_choice import ToolPlan, plan_tools
from phi4.engine.structured.tool_grammar import ToolCallGrammar, ToolRules
from phi4.errors import InvalidRequest
from phi4.processing.tokenizer import ModelTokens
from phi4.processing.tool_parser import parse_tool_calls
from phi4.processing.tools import normalise_tools
from phi4.testing.writing import Writer
from phi4.types import ToolCall
from phi4.verify.toolcalls import check_call

LIGHT = {
    "name": "set_light",
    "parameters": {
        "type": "object",
        "properties": {"room": {"enum": ["kitchen", "hall"]}, "on": {"type": "boolean"}},
        "required": ["room", "on"],
    },
}
TIMER = {
    "name": "set_timer",
    "parameters": {"minutes": {"type": "int"}, "label": {"type": "str", "default": ""}},
}
STOP = {"name": "stop", "parameters": {}}
TOOLS = [LIGHT, {"type": "function", "function": TIMER}, STOP]
CALL = '[{"name": "set_light", "arguments": {"room": "hall", "on": true}}]'


def marker(tokens: ModelTokens) -> int:
    assert tokens.tool_call is not None
    return tokens.tool_call


def begin(compiler: GrammarCompiler, plan: ToolPlan) -> ToolCallGrammar:
    assert plan.grammar is not None
    grammar = compiler.compile(plan.grammar)
    assert isinstance(grammar, ToolCallGrammar)
    return grammar


def called(writer: Writer, said: str | None) -> tuple[ToolCall, ...] | None:
    """The calls of a whole answer, which holds nothing else; None = it was not whole."""
    if said is None:
        return None
    parsed = parse_tool_calls(said, ["no bare JSON counts"])
    assert parsed.text == "" and said.endswith("<|/tool_call|>")
    return parsed.calls


@pytest.mark.parametrize("parallel", [True, False])
def test_every_call_is_of_a_tool_on_offer_with_arguments_that_fit(
    compiler: GrammarCompiler, writer: Writer, parallel: bool
) -> None:
    plan = plan_tools(TOOLS, "required", parallel=parallel)
    said = [called(writer, writer.babble(begin(compiler, plan), seed)) for seed in range(40)]
    whole = [calls for calls in said if calls is not None]
    assert len(whole) >= 30
    for calls in whole:
        assert calls and all(check_call(call, plan.shown) == () for call in calls)
    assert {call.name for calls in whole for call in calls} == {"set_light", "set_timer", "stop"}
    assert max(map(len, whole)) > 1 if parallel else max(map(len, whole)) == 1


def test_a_named_tool_is_called_once_and_no_other(compiler: GrammarCompiler, writer: Writer) -> None:
    plan = plan_tools(TOOLS, {"type": "function", "function": {"name": "set_timer"}})
    assert [tool.name for tool in plan.shown] == ["set_light", "set_timer", "stop"]
    whole = [called(writer, writer.babble(begin(compiler, plan), seed)) for seed in range(10)]
    assert {tuple(call.name for call in calls) for calls in whole if calls} == {("set_timer",)}


def test_free_text_has_no_mask_until_a_call_begins(compiler: GrammarCompiler, writer: Writer) -> None:
    grammar = begin(compiler, plan_tools(TOOLS))
    tokens = writer.tokenizer.tokens
    assert grammar.triggers == {tokens.tool_call}
    for token in writer.tokenizer.encode_text('functools[ {"no": '):
        assert grammar.allowed() is None
        grammar.accept(token)
    grammar.accept(marker(tokens))
    mask = grammar.allowed()
    assert mask is not None and not mask[list(tokens.stop_ids)].any()
    assert all(writer.say(grammar, writer.tokenizer.encode_text(CALL)))
    mask = grammar.allowed()
    assert mask is not None and np.flatnonzero(mask).tolist() == [tokens.tool_call_end]


def test_after_the_calls_comes_the_end(compiler: GrammarCompiler, writer: Writer) -> None:
    grammar = begin(compiler, plan_tools(TOOLS))
    tokens = writer.tokenizer.tokens
    assert tokens.tool_call_end is not None
    ids = [marker(tokens), *writer.tokenizer.encode_text(CALL), tokens.tool_call_end]
    assert all(writer.say(grammar, ids)) and grammar.finished
    mask = grammar.allowed()
    assert mask is not None and np.flatnonzero(mask).tolist() == sorted(tokens.stop_ids)


def test_free_text_may_end_without_a_call(compiler: GrammarCompiler, writer: Writer) -> None:
    grammar = begin(compiler, plan_tools(TOOLS))
    assert not grammar.finished
    writer.say(grammar, [*writer.tokenizer.encode_text("hi"), writer.tokenizer.tokens.end])
    assert grammar.finished


@pytest.mark.parametrize(
    "text",
    [
        CALL,
        CALL.replace(" ", ""),
        '[{"name": "stop", "arguments": {}}, {"name": "set_timer", "arguments": {"minutes": 3}}]',
        '[{"name": "set_timer", "arguments": {"minutes": 3, "label": "egg"}}]',
    ],
)
def test_calls_as_the_model_was_trained_to_write_them_may_be_said(
    compiler: GrammarCompiler, writer: Writer, text: str
) -> None:
    grammar = begin(compiler, plan_tools(TOOLS))
    assert all(writer.say(grammar, [marker(writer.tokenizer.tokens), *writer.tokenizer.encode_text(text)]))


@pytest.mark.parametrize(
    "text",
    [
        '[{"name": "open_door"',
        '[{"name": "set_light", "arguments": {"room": "attic"',
        '[{"name": "set_light", "arguments": {"room": "hall"}}',
        '[{"name": "set_light", "arguments": {"room": "hall", "on": true, "colour"',
        '[{"name": "stop", "arguments": {"now"',
        '[{"name": "set_timer", "arguments": {"minutes": "three"',
        "[]",
        "{",
        "[  {",
    ],
)
def test_a_wrong_call_cannot_be_written(compiler: GrammarCompiler, writer: Writer, text: str) -> None:
    grammar = begin(compiler, plan_tools(TOOLS))
    ids = [marker(writer.tokenizer.tokens), *writer.tokenizer.encode_text(text)]
    assert not all(writer.say(grammar, ids))


def test_with_a_response_format_an_answer_is_either_a_call_or_of_that_form(
    compiler: GrammarCompiler, writer: Writer
) -> None:
    plan = plan_tools(TOOLS, answer=GrammarSpec("choice", '["on", "off"]'))
    tokens = writer.tokenizer.tokens
    said = writer.say(begin(compiler, plan), [marker(tokens), *writer.tokenizer.encode_text(CALL)])
    assert all(said)
    assert writer.can_say(begin(compiler, plan), "off")
    assert not writer.can_say(begin(compiler, plan), "no")
    grammar = begin(compiler, plan)
    assert all(writer.say(grammar, writer.tokenizer.encode_text("o")))
    assert not any(writer.say(grammar, [marker(tokens)])), "no call in the middle of it"
    grammar = begin(compiler, plan)
    assert all(writer.say(grammar, writer.tokenizer.encode_text("on"))) and grammar.finished


def test_without_tools_or_with_none_only_the_response_format_is_left() -> None:
    form = GrammarSpec("json_object")
    assert plan_tools([], answer=form) == ToolPlan(grammar=form)
    assert plan_tools(TOOLS, "none") == ToolPlan()


REFUSED: dict[str, tuple[list[Any], Any, str]] = {
    "unknown word": (TOOLS, "always", "give 'none', 'auto', 'required'"),
    "unknown object": (TOOLS, {"type": "allowed_tools"}, "give 'none', 'auto', 'required'"),
    "unknown tool": (TOOLS, {"type": "function", "function": {"name": "fly"}}, "set_light, set_timer, stop"),
    "no name": (TOOLS, {"type": "function"}, "tools on offer"),
    "no tools": ([], "required", "no tools are given"),
    "arguments that are a list": (
        [{"name": "f", "parameters": {"type": "array", "items": {}}}],
        "auto",
        "must be 'object'",
    ),
    "twice the same": ([STOP, STOP], "auto", "more than once"),
    "values that are no JSON": (
        [{"name": "f", "parameters": {"type": "object", "properties": {"x": {"const": {1, 2}}}}}],
        "auto",
        "no JSON",
    ),
    "enum without end": (
        [{"name": "f", "parameters": {"type": "object", "properties": {"x": {"enum": list(range(20_000))}}}}],
        "auto",
        "enum values",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_impossible_wish_is_refused(case: str) -> None:
    tools, choice, why = REFUSED[case]
    with pytest.raises(InvalidRequest, match=why):
        plan_tools(tools, choice)


def test_a_tool_whose_schema_says_nonsense_is_refused_when_compiled(compiler: GrammarCompiler) -> None:
    broken = {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "str"}}}}
    with pytest.raises(InvalidRequest, match="schemas of the tools cannot be used"):
        begin(compiler, plan_tools([broken]))


def test_references_inside_a_tool_mean_that_tool(compiler: GrammarCompiler, writer: Writer) -> None:
    def tool(name: str, word: str) -> dict[str, Any]:
        place = {
            "type": "object",
            "properties": {"at": {"const": word}, "default": {"$ref": "#/$defs/place"}},
        }
        return {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"to": {"$ref": "#/$defs/place"}, "$ref": {"const": "#/$defs/place"}},
                "required": ["to"],
                "$defs": {"place": {**place, "required": ["at"], "additionalProperties": False}},
            },
        }

    plan = plan_tools([tool("go", "home"), tool("send", "away")], "required")

    def may_say(name: str, word: str) -> bool:
        inner = json.dumps({"at": word, "default": {"at": word}})
        call = f'[{{"name": "{name}", "arguments": {{"to": {inner}, "$ref": "#/$defs/place"}}}}]'
        ids = [marker(writer.tokenizer.tokens), *writer.tokenizer.encode_text(call)]
        return all(writer.say(begin(compiler, plan), ids))

    assert may_say("go", "home") and may_say("send", "away")
    assert not may_say("go", "away") and not may_say("send", "home")


def test_an_open_schema_stays_open(compiler: GrammarCompiler, writer: Writer) -> None:
    free = {"name": "log", "parameters": {"type": "object", "additionalProperties": {"type": "integer"}}}
    ids = writer.tokenizer.encode_text('[{"name": "log", "arguments": {"a": 1, "b": 2}}]')
    grammar = begin(compiler, plan_tools([free]))
    assert all(writer.say(grammar, [marker(writer.tokenizer.tokens), *ids]))


def test_a_strict_tool_says_what_cannot_be_enforced(compiler: GrammarCompiler) -> None:
    tool = {"name": "f", "parameters": {"type": "object", "properties": {"x": {"not": {"type": "null"}}}}}
    begin(compiler, plan_tools([tool]))
    with pytest.raises(InvalidRequest, match="not"):
        begin(compiler, plan_tools([{**tool, "strict": True}]))


def test_the_rules_survive_being_sent() -> None:
    plan = plan_tools(TOOLS, "required", parallel=False, answer=GrammarSpec("regex", "ä+"))
    assert plan.grammar is not None
    rules = ToolRules.from_text(plan.grammar.text)
    assert ToolRules.from_text(rules.to_text()) == rules
    assert (rules.must_call, rules.several, rules.answer) == (True, False, GrammarSpec("regex", "ä+"))
    assert [name for name, _ in rules.tools] == [tool.name for tool in normalise_tools(TOOLS)]


def test_a_model_without_call_tokens_says_so(compiler: GrammarCompiler, writer: Writer) -> None:
    bare = copy(writer.tokenizer)
    bare.tokens = replace(bare.tokens, tool_call=None)
    with pytest.raises(InvalidRequest, match="'tool_call' token"):
        begin(GrammarCompiler(bare, writer.vocab_size), plan_tools(TOOLS))


FITS: dict[str, tuple[list[ToolCall], bool]] = {
    "a call": ([ToolCall("set_light", {"room": "hall", "on": True})], True),
    "another order": ([ToolCall("set_light", {"on": True, "room": "hall"})], True),
    "two calls": ([ToolCall("stop", {}), ToolCall("set_timer", {"minutes": 3})], True),
    "not offered": ([ToolCall("rm_rf", {"path": "/"})], False),
    "one of two not offered": ([ToolCall("stop", {}), ToolCall("rm_rf", {})], False),
    "a value that is not allowed": ([ToolCall("set_light", {"room": "attic", "on": True})], False),
    "a value of another type": ([ToolCall("set_timer", {"minutes": "three"})], False),
    "an argument missing": ([ToolCall("set_light", {"room": "hall"})], False),
    "an argument too many": ([ToolCall("stop", {"now": True})], False),
}


@pytest.mark.parametrize("case", FITS)
def test_calls_in_another_dialect_fit_as_native_ones_do(compiler: GrammarCompiler, case: str) -> None:
    calls, fit = FITS[case]
    grammar = begin(compiler, plan_tools(TOOLS))
    assert grammar.fits(calls) is fit
    assert grammar.fits([ToolCall("stop", {})]), "judging one leaves nothing behind for the next"


def test_judging_has_a_budget_of_processor_time(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some schemas cost milliseconds a token, and the engine's loop waits."""
    grammar = begin(compiler, plan_tools(TOOLS))
    assert grammar.fits([ToolCall("set_timer", {"minutes": 3})])
    monkeypatch.setattr(constraint, "_MOST_CPU_S", 0.0)
    assert not grammar.fits([ToolCall("set_timer", {"minutes": 3})])


def test_what_the_rules_say_of_other_dialects(compiler: GrammarCompiler) -> None:
    free, formed = plan_tools(TOOLS), plan_tools(TOOLS, answer=GrammarSpec("json_object"))
    assert begin(compiler, free).free and not begin(compiler, formed).free
    assert begin(compiler, free).most_calls is None
    assert begin(compiler, plan_tools(TOOLS, parallel=False)).most_calls == 1


def test_a_tool_may_require_what_it_does_not_list(compiler: GrammarCompiler) -> None:
    tool = {"name": "f", "parameters": {"type": "object", "properties": {"a": {}}, "required": ["b"]}}
    grammar = begin(compiler, plan_tools([{**tool, "strict": True}]))
    assert grammar.fits([ToolCall("f", {"b": 1})]) and grammar.fits([ToolCall("f", {"a": 2, "b": [1]})])
    assert not grammar.fits([ToolCall("f", {"a": 2})]) and not grammar.fits([ToolCall("f", {"b": 1, "c": 1})])


def test_a_tool_with_look_around_is_held_to_the_rest_of_its_schema(compiler: GrammarCompiler) -> None:
    properties = {"to": {"type": "string", "pattern": r"^(?!\.).+$"}, "n": {"type": "integer"}}
    tool = {"name": "mail", "parameters": {"type": "object", "properties": properties, "required": ["to"]}}
    grammar = begin(compiler, plan_tools([tool]))
    assert grammar.fits([ToolCall("mail", {"to": ".x", "n": 1})])
    assert not grammar.fits([ToolCall("mail", {"to": 5})])
    with pytest.raises(InvalidRequest, match="look-around"):
        begin(compiler, plan_tools([{**tool, "strict": True}]))
