"""Scorers count what a person would count."""

from __future__ import annotations

import pytest

from phi4.evals.scorers import (
    Expected,
    Outcome,
    Scorer,
    character_error_rate,
    exact_answer,
    exact_sum,
    exact_tool_calls,
    sum_answer,
    word_error_rate,
)
from phi4.types import Completion, Timing, ToolCall, Usage
from phi4.verify import worked_lines


def answer(text: str = "", *calls: ToolCall) -> Completion:
    return Completion(text, (), calls, "stop", Usage(0, 0), Timing())


def test_word_errors_ignore_case_and_punctuation_but_not_words() -> None:
    assert word_error_rate(answer("turn on THE lamp"), Expected("Turn on the lamp.")) == Outcome(0, 4)
    assert word_error_rate(answer("turn the red lamp on"), Expected("turn on the lamp")) == Outcome(3, 4)


def test_word_errors_of_an_empty_answer_are_all_words() -> None:
    assert word_error_rate(answer(""), Expected("one two three")) == Outcome(3, 3)


def test_runaway_answer_has_more_errors_than_words() -> None:
    assert word_error_rate(answer("one two " * 10), Expected("one two")) == Outcome(18, 2)


def test_character_errors_count_case_and_punctuation_but_not_extra_spaces() -> None:
    assert character_error_rate(answer(" Gate  7 "), Expected("Gate 7")) == Outcome(0, 6)
    assert character_error_rate(answer("gate 7."), Expected("Gate 7")) == Outcome(2, 6)


def test_exact_answer_accepts_no_word_more() -> None:
    assert exact_answer(answer("Blue."), Expected("blue")).right
    assert not exact_answer(answer("blue bar"), Expected("blue")).right
    assert not exact_answer(answer(""), Expected("blue")).right


def test_exact_answer_sees_the_sign_of_a_number() -> None:
    assert not exact_answer(answer("-5"), Expected("5")).right
    assert not exact_answer(answer("1.5"), Expected("15")).right


def test_nearest_of_several_accepted_answers_counts() -> None:
    expected = Expected("two pm", accepted=("14:00", "fourteen hundred"))
    assert exact_answer(answer("14:00"), expected).right
    assert word_error_rate(answer("fourteen hundreds"), expected) == Outcome(1, 2)


def test_tool_calls_must_agree_in_order_name_and_arguments() -> None:
    dim = ToolCall("set_light", {"room": "kitchen", "level": 40})
    lock = ToolCall("lock_door", {"door": "front"})
    expected = Expected(tool_calls=(dim, lock))
    same = (ToolCall("set_light", {"level": 40.0, "room": "kitchen"}, id="x"), lock)
    assert exact_tool_calls(answer("", *same), expected).right
    assert not exact_tool_calls(answer("", lock, dim), expected).right
    assert not exact_tool_calls(answer("", dim), expected).right
    assert not exact_tool_calls(answer("set_light kitchen 40"), expected).right


def test_where_no_tool_fits_the_model_must_say_so() -> None:
    expected = Expected("I have no tool for that.")
    assert exact_tool_calls(answer("I have no tool for that."), expected).right
    assert not exact_tool_calls(answer("<broken call"), expected).right
    assert not exact_tool_calls(answer("I have no tool for that.", ToolCall("f", {})), expected).right


def test_sum_is_right_when_its_answer_and_every_step_are() -> None:
    expected = Expected("\n".join(worked_lines(47, "+", 5)))
    assert exact_sum(answer(expected.text + "\n"), expected).right
    wrong_step = expected.text.replace("= 12 write 2 carry 1", "= 12 write 2 carry 0")
    assert wrong_step != expected.text and not exact_sum(answer(wrong_step), expected).right
    assert not exact_sum(answer("answer: 52"), expected).right
    assert not exact_sum(answer(expected.text.replace("answer: 52", "answer: 53")), expected).right


def test_answer_of_a_sum_can_be_judged_without_its_steps() -> None:
    expected = Expected("\n".join(worked_lines(47, "+", 5)))
    assert sum_answer(answer("some steps\nanswer: 52"), expected).right
    assert not sum_answer(answer("answer: 53"), expected).right
    assert not sum_answer(answer("52"), expected).right


@pytest.mark.parametrize("scorer", [exact_sum, sum_answer])
def test_right_answers_without_a_stated_number_are_a_mistake_of_ours(scorer: Scorer) -> None:
    with pytest.raises(AssertionError, match="must state its answer"):
        scorer(answer("1"), Expected("one"))


def test_expected_calls_are_shown_as_a_person_would_write_them() -> None:
    call = ToolCall("set_light", {"room": "kitchen", "level": 40})
    assert Expected(tool_calls=(call, call)).shown == "; ".join(["set_light(room='kitchen', level=40)"] * 2)
    assert Expected("plain").shown == "plain"
