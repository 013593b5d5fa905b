"""One answer in the words of the routes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from phi4.engine.structured.compiler import GrammarCompiler
from phi4.engine.structured.spec import GrammarSpec
from phi4.engine.structured.tool_choice import plan_tools
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.processing.tool_json import CALL_BEGIN, CALL_END
from phi4.server.worker.values import ServerEvent
from phi4.server.worker.wording import Wording
from phi4.types import Completion, Delta, FinishReason, Timing, TokenLogprob, Usage

LIST = '[{"name": "add", "arguments": {"a": 1, "b": [2, 3]}}]'
CALL = f"{CALL_BEGIN}{LIST}{CALL_END}"
ADD = {
    "name": "add",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "array", "items": {"type": "integer"}}},
    },
}


@pytest.fixture(scope="module")
def compiler(served_tokenizer: Phi4Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(served_tokenizer)


@pytest.fixture
def calling(served_tokenizer: Phi4Tokenizer, compiler: GrammarCompiler) -> Callable[..., Wording]:
    """Words of an answer that may call `add`; arguments as for `plan_tools`."""

    def make(**options: Any) -> Wording:
        plan = plan_tools([ADD], **options)
        assert plan.grammar is not None
        return Wording(0, served_tokenizer, plan.names, compiler.compile(plan.grammar))

    return make


def completion(reason: FinishReason = "stop") -> Completion:
    return Completion("", (), (), reason, Usage(7, 3, cached_tokens=4), Timing(), ("speech",))


def said(wording: Wording, text: str, size: int = 4, reason: FinishReason = "stop") -> list[ServerEvent]:
    pieces = [Delta(text[at : at + size]) for at in range(0, len(text), size)]
    events = [wording.say(delta) for delta in [*pieces, Delta(completion=completion(reason))]]
    return [event for event in events if event is not None]


def test_text_passes_and_the_last_event_has_counts(served_tokenizer: Phi4Tokenizer) -> None:
    events = said(Wording(3, served_tokenizer, ()), "hello there")
    assert "".join(event.text for event in events) == "hello there"
    assert [event.finish_reason for event in events] == [None, None, None, "stop"]
    last = events[-1]
    assert (last.index, last.cached_tokens, last.adapters) == (3, 4, ("speech",))
    assert last.usage is not None and last.usage.prompt_tokens == 7 and last.timing is not None


@pytest.mark.parametrize("form", [None, GrammarSpec("json_object")])
def test_without_a_grammar_of_calls_everything_is_text(
    served_tokenizer: Phi4Tokenizer, compiler: GrammarCompiler, form: GrammarSpec | None
) -> None:
    grammar = None if form is None else compiler.compile(form)
    events = said(Wording(0, served_tokenizer, ("add",), grammar), LIST)
    assert "".join(event.text for event in events) == LIST
    assert not any(event.tool_calls for event in events)


def test_arguments_come_while_they_are_written(calling: Callable[..., Wording]) -> None:
    events = said(calling(), CALL)
    pieces = [piece for event in events for piece in event.tool_calls]
    assert len(pieces) > 3
    assert pieces[0].name == "add" and pieces[0].id.startswith("call_") and len(pieces[0].id) > 20
    assert not any(piece.id or piece.name for piece in pieces[1:])
    assert json.loads("".join(piece.arguments for piece in pieces)) == {"a": 1, "b": [2, 3]}
    assert not "".join(event.text for event in events).strip()
    assert events[-1].finish_reason == "tool_calls"


def test_a_call_that_was_cut_off_keeps_the_reason_for_that(calling: Callable[..., Wording]) -> None:
    events = said(calling(), CALL[:45], reason="length")
    assert events[-1].finish_reason == "length"


@pytest.mark.parametrize("length", range(1, 31))
def test_a_call_that_was_cut_off_leaves_no_markup(calling: Callable[..., Wording], length: int) -> None:
    events = said(calling(), "On it. " + CALL[:length], size=1, reason="length")
    assert "".join(event.text for event in events) == "On it. "
    assert not any(event.tool_calls for event in events) and events[-1].finish_reason == "length"


DIALECTS = {
    "functools": "functools{}",
    "bare": "{}",
    "fenced": "```json\n{}\n```",
    "spelled out": "<|tool_call|>{}<|/tool_call|>",
}


def shown(events: list[ServerEvent]) -> tuple[str, list[tuple[str, str]]]:
    """Text, and name and arguments of each call."""
    calls: dict[int, tuple[str, str]] = {}
    for piece in (piece for event in events for piece in event.tool_calls):
        name, arguments = calls.get(piece.index, ("", ""))
        calls[piece.index] = (name + piece.name, arguments + piece.arguments)
    return "".join(event.text for event in events), list(calls.values())


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("size", [1, 1000])
def test_a_call_that_fits_counts_in_every_dialect(
    calling: Callable[..., Wording], dialect: str, size: int
) -> None:
    events = said(calling(), DIALECTS[dialect].replace("{}", LIST), size)
    text, ((name, arguments),) = shown(events)
    assert (text, name, json.loads(arguments)) == ("", "add", {"a": 1, "b": [2, 3]})
    assert events[-1].finish_reason == "tool_calls"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize(
    "call", ['{"name": "rm_rf", "arguments": {"path": "/"}}', '{"name": "add", "arguments": {"a": "one"}}']
)
def test_a_call_that_does_not_fit_is_text_in_every_dialect(
    calling: Callable[..., Wording], dialect: str, size: int, call: str
) -> None:
    text = DIALECTS[dialect].replace("{}", f"[{call}]")
    events = said(calling(), text, size)
    assert shown(events) == (text, []) and events[-1].finish_reason == "stop"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_without_parallel_calls_the_first_counts_in_every_dialect(
    calling: Callable[..., Wording], dialect: str
) -> None:
    one = '{"name": "add", "arguments": {"a": 1}}'
    text = DIALECTS[dialect].replace("{}", f"[{one}, {one}]")
    assert len(shown(said(calling(), text))[1]) == 2
    found = shown(said(calling(parallel=False), f"{text}\n{text}{CALL_BEGIN}[{one}]{CALL_END}", 3))
    assert (found[0].strip(), found[1]) == ("", [("add", '{"a": 1}')])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_answer_of_a_given_form_is_that_form_and_no_call(
    calling: Callable[..., Wording], dialect: str
) -> None:
    text = DIALECTS[dialect].replace("{}", LIST)
    assert shown(said(calling(answer=GrammarSpec("regex", ".*")), text)) == (text, [])


def test_ids_of_calls_differ_from_answer_to_answer(calling: Callable[..., Wording]) -> None:
    ids = set()
    for _ in range(3):
        events = said(calling(), CALL)
        ids |= {piece.id for event in events for piece in event.tool_calls if piece.id}
    assert len(ids) == 3


def test_log_probabilities_carry_text_and_bytes_of_tokens(served_tokenizer: Phi4Tokenizer) -> None:
    token = served_tokenizer.encode_text("é")[0]  # the first byte of two
    scored = TokenLogprob(token, -0.25, ((token, -0.25), (served_tokenizer.encode_text("a")[0], -2.0)))
    event = Wording(0, served_tokenizer, ()).say(Delta(logprobs=(scored,)))
    assert event is not None and not event.text
    (found,) = event.logprobs
    assert found.token.token_bytes == served_tokenizer.token_bytes(token)
    assert found.token.text == "\ufffd" and found.token.logprob == -0.25
    assert [candidate.text for candidate in found.top] == ["\ufffd", "a"]


def test_nothing_to_show_is_no_event(served_tokenizer: Phi4Tokenizer) -> None:
    assert Wording(0, served_tokenizer, ()).say(Delta()) is None
