"""What of the drawn tokens is text: never a control token, and with tools no call's markup either."""

from __future__ import annotations

import pytest

from phi4.engine.answering.answer import Answer
from phi4.engine.answering.grammar import GrammarRule
from phi4.engine.answering.guards import LoopGuard, LoopLimits
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.testing.mixes import RandomGrammar
from phi4.testing.tiny import write_tiny_tokenizer
from phi4.types import Completion, Timing, Usage


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Phi4Tokenizer:
    return write_tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.mark.parametrize("tools", [(), ("lamp",)])
def test_stray_control_tokens_are_never_shown(tokenizer: Phi4Tokenizer, tools: tuple[str, ...]) -> None:
    tokens = tokenizer.tokens
    kept = (*tokens.stop_ids, tokens.tool_call, tokens.tool_call_end)
    stray = [token.id for token in tokenizer.added_tokens if token.id not in kept]
    assert {tokens.tool, tokens.tool_end, tokens.tool_response} <= set(stray)
    answer = Answer(tokenizer, (), 100, tools)
    said = [*stray, *tokenizer.encode_text("the light"), *stray, tokens.end]
    assert "".join(answer.push(token)[0] for token in said) == "the light"


def test_the_markers_of_a_call_reach_the_parser_and_not_the_reader(tokenizer: Phi4Tokenizer) -> None:
    tokens = tokenizer.tokens
    assert tokens.tool_call is not None and tokens.tool_call_end is not None and tokens.tool is not None
    answer = Answer(tokenizer, (), 200, ("lamp",))
    call = tokenizer.encode_text('{"name": "dim", "arguments": {}}')  # not offered: only a marked call counts
    shown = [answer.push(token) for token in (tokens.tool, tokens.tool_call, *call, tokens.tool_call_end)]
    shown.append(answer.push(tokens.end))
    assert "".join(text for text, _ in shown).strip() == ""
    assert [found.name for _, calls in shown for found in calls] == ["dim"]


def answered(tokenizer: Phi4Tokenizer, ids: list[int], stop: tuple[str, ...] = ()) -> Completion:
    """What a whole answer of these tokens comes to; as many as it takes."""
    answer = Answer(tokenizer, stop, len(ids), ("lamp",))
    shown = ""
    for token in ids:
        if not answer.finished:
            shown += answer.push(token)[0]
    done = answer.completion((), Usage(0, 0), Timing(), ())
    assert shown == done.text
    return done


def native(tokenizer: Phi4Tokenizer, call: str) -> list[int]:
    tokens = tokenizer.tokens
    assert tokens.tool_call is not None and tokens.tool_call_end is not None
    return [tokens.tool_call, *tokenizer.encode_text(call), tokens.tool_call_end]


CALL = '[{"name": "lamp", "arguments": {"say": "STOP"}}]'


def test_a_call_that_is_cut_off_leaves_no_markup(tokenizer: Phi4Tokenizer) -> None:
    whole = [*tokenizer.encode_text("Yes. "), *native(tokenizer, CALL)]
    before = len(tokenizer.encode_text("Yes. "))
    for length in range(before + 1, len(whole) - 1):
        done = answered(tokenizer, whole[:length])
        assert (done.text, done.finish_reason, done.tool_calls) == ("Yes. ", "length", ())
    assert answered(tokenizer, whole).tool_calls[0].arguments == {"say": "STOP"}


def test_a_stop_string_ends_text_and_no_call(tokenizer: Phi4Tokenizer) -> None:
    ids = [*tokenizer.encode_text("Yes. "), *native(tokenizer, CALL), *tokenizer.encode_text("So STOP here")]
    done = answered(tokenizer, ids, ("STOP",))
    assert (done.text, done.finish_reason) == ("Yes. So ", "tool_calls")
    assert [dict(call.arguments) for call in done.tool_calls] == [{"say": "STOP"}]


def test_a_stop_string_does_not_reach_over_a_control_token(tokenizer: Phi4Tokenizer) -> None:
    ids = [*tokenizer.encode_text("a ST"), *native(tokenizer, CALL), *tokenizer.encode_text("OP b")]
    done = answered(tokenizer, ids, ("STOP", "<|tool_call|>"))
    assert (done.text, len(done.tool_calls)) == ("a STOP b", 1)


def test_a_stop_string_that_half_a_character_completes_comes_before_the_call(
    tokenizer: Phi4Tokenizer,
) -> None:
    half = tokenizer.encode_text("é")[:1]
    done = answered(tokenizer, [*tokenizer.encode_text("a"), *half, *native(tokenizer, CALL)], ("a\ufffd",))
    assert (done.text, done.finish_reason, done.tool_calls) == ("", "stop", ())


def reason(answer: Answer) -> str:
    return answer.completion((), Usage(0, 0), Timing(), ()).finish_reason


def test_a_finished_grammar_ends_the_answer_and_its_last_token_is_shown(tokenizer: Phi4Tokenizer) -> None:
    grammar = RandomGrammar(3, tokenizer.vocab_size, 2)
    answer = Answer(tokenizer, (), 2, rules=[GrammarRule(grammar, tokenizer.tokens.stop_ids)])
    shown = ""
    while not answer.finished:
        mask = grammar.allowed()
        assert mask is not None
        shown += answer.push(int(mask.argmax()))[0]
    assert grammar.finished and shown
    assert reason(answer) == "stop", "not cut off by the length limit, though it is reached too"


def test_a_grammar_is_not_told_about_the_end_of_the_turn(tokenizer: Phi4Tokenizer) -> None:
    grammar = RandomGrammar(3, tokenizer.vocab_size, 1)  # would refuse the stop id
    answer = Answer(tokenizer, (), 9, rules=[GrammarRule(grammar, tokenizer.tokens.stop_ids)])
    answer.push(tokenizer.tokens.end)
    assert reason(answer) == "stop" and not grammar.finished


def test_a_loop_gives_back_what_was_held_for_a_stop_string(tokenizer: Phi4Tokenizer) -> None:
    (letter,) = tokenizer.encode_text("x")
    answer = Answer(tokenizer, ("xxxxxxxxxx",), 99, rules=[LoopGuard(LoopLimits(2, 2, 6))])
    shown = [answer.push(letter)[0] for _ in range(6)]
    assert shown == [""] * 5 + ["xxxxxx"]
    assert reason(answer) == "repetition"
