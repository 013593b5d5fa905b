"""One answer in the words of the routes."""

from __future__ import annotations

import json

import pytest

from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.server.worker.values import ServerEvent
from phi4.server.worker.wording import Wording
from phi4.types import Completion, Delta, FinishReason, Timing, TokenLogprob, Usage

CALL = '<|tool_call|>[{"name": "add", "arguments": {"a": 1, "b": [2, 3]}}]<|/tool_call|>'


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


def test_without_tools_markup_is_text(served_tokenizer: Phi4Tokenizer) -> None:
    events = said(Wording(0, served_tokenizer, ()), CALL)
    assert "".join(event.text for event in events) == CALL
    assert not any(event.tool_calls for event in events)


def test_arguments_come_while_they_are_written(served_tokenizer: Phi4Tokenizer) -> None:
    events = said(Wording(0, served_tokenizer, ("add",)), CALL)
    pieces = [piece for event in events for piece in event.tool_calls]
    assert len(pieces) > 3
    assert pieces[0].name == "add" and pieces[0].id.startswith("call_") and len(pieces[0].id) > 20
    assert not any(piece.id or piece.name for piece in pieces[1:])
    assert json.loads("".join(piece.arguments for piece in pieces)) == {"a": 1, "b": [2, 3]}
    assert not "".join(event.text for event in events).strip()
    assert events[-1].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "other",
    [
        CALL.replace('"add"', '"stop_everything"'),
        'functools[{"name": "stop_everything", "arguments": {"now": true}}]',
        '[{"name": "stop_everything", "arguments": {"now": true}}]',
        'functools[{"name": "add", "arguments": {}}, {"name": "stop_everything", "arguments": {}}]',
    ],
    ids=["marked", "functools", "bare", "behind one that was offered"],
)
def test_a_call_of_a_function_that_was_not_offered_is_text(
    served_tokenizer: Phi4Tokenizer, other: str
) -> None:
    events = said(Wording(0, served_tokenizer, ("add",)), other)
    names = [piece.name for event in events for piece in event.tool_calls if piece.name]
    assert set(names) <= {"add"} and events[-1].finish_reason == "stop"
    assert "stop_everything" in "".join(event.text for event in events)


def test_a_call_that_was_cut_off_keeps_the_reason_for_that(served_tokenizer: Phi4Tokenizer) -> None:
    events = said(Wording(0, served_tokenizer, ("add",)), CALL[:45], reason="length")
    assert events[-1].finish_reason == "length"


def test_ids_of_calls_differ_from_answer_to_answer(served_tokenizer: Phi4Tokenizer) -> None:
    ids = set()
    for _ in range(3):
        events = said(Wording(0, served_tokenizer, ("add",)), CALL)
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
