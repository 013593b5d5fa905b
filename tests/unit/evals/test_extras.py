"""Extras show a part of a row or a second judgement of it, from the same answers, and change nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from phi4.evals.extras import ANSWER_RIGHT, CALL_RUNS, UNSEEN_DIALECT, UNSEEN_TEMPLATES, Extra, measure
from phi4.evals.run import Settings, evaluate, judge
from phi4.evals.samples import Sample
from phi4.evals.scorers import Expected, Outcome
from phi4.evals.tasks import TASKS
from phi4.types import Completion, Timing, ToolCall, ToolSpec, Usage

RED_ONES = Extra("red ones", "pictures that are red", lambda sample: sample.expected.text == "red")
SHORT = Extra(
    "short",
    "at most three letters",
    lambda sample: True,
    lambda given, _: Outcome(int(len(given.text) > 3), 1),
)
NEVER = Extra("never", "no sample at all", lambda sample: False)
LIGHT = ToolSpec(
    "light", "", {"type": "object", "properties": {"room": {"type": "string"}}, "required": ["room"]}
)


def said(text: str = "", *calls: ToolCall) -> Completion:
    return Completion(text, (), calls, "stop", Usage(1, 1), Timing())


def made(**facts: object) -> Sample:
    return Sample("made/up", (), Expected("text"), facts=facts)


def test_a_part_of_the_samples_is_judged_as_the_task_judges(guesser, colour_task) -> None:
    task = replace(colour_task, extras=(RED_ONES,))
    (row,) = evaluate(guesser, [task], Settings(n=8, controls=False))
    (extra,) = row.extras
    assert row.score.value == 0.25
    assert (extra.name, extra.n, extra.score.value, extra.error_rate) == ("red ones", 2, 1.0, 0.0)
    assert 0.3 < extra.score.low < 0.4 and extra.score.high == 1.0  # Wilson's interval of 2 of 2


def test_a_second_judgement_sees_the_same_answers(senser, colour_task) -> None:
    task = replace(colour_task, extras=(SHORT,))
    (row,) = evaluate(senser, [task], Settings(n=8, controls=False))
    assert row.score.value == 1.0
    assert row.extras[0].score.value == 0.25, "red is short; green, blue and black are not"


def test_extras_ask_the_model_nothing_and_those_without_samples_are_left_out(senser, colour_task) -> None:
    task = replace(colour_task, extras=(NEVER, RED_ONES))
    (row,) = evaluate(senser, [task], Settings(n=8))
    assert [extra.name for extra in row.extras] == ["red ones"]
    assert len(senser.requests) == 8 * 4  # as it is and three controls
    assert row.needs_its_media


@pytest.mark.parametrize(
    ("extra", "facts", "holds"),
    [
        (UNSEEN_TEMPLATES, {"template": 0}, True),
        (UNSEEN_TEMPLATES, {"template": 24}, True),
        (UNSEEN_TEMPLATES, {"template": 25}, False),
        (UNSEEN_TEMPLATES, {"kind": "salad"}, False),
        (UNSEEN_DIALECT, {"held_out_dialect": True}, True),
        (UNSEEN_DIALECT, {"held_out_dialect": False}, False),
    ],
)
def test_parts_of_the_sentences_are_chosen_by_how_they_were_made(
    extra: Extra, facts: dict[str, object], holds: bool
) -> None:
    assert extra.holds(made(**facts)) is holds


def test_recorded_sentences_say_their_template_and_dialect() -> None:
    task = TASKS["speech_sentences"]
    assert task.extras == (UNSEEN_TEMPLATES, UNSEEN_DIALECT)
    for sample in task.samples(3):
        assert isinstance(sample.facts["template"], int)
        assert isinstance(sample.facts["held_out_dialect"], bool)


def test_sums_without_steps_count_in_the_extra_alone() -> None:
    task = TASKS["sums"]
    assert task.extras == (ANSWER_RIGHT,)
    samples = task.samples(6)
    answers = [said(sample.expected.text.splitlines()[-1]) for sample in samples]
    outcomes = judge(task, samples, answers)
    assert not any(outcome.right for outcome in outcomes)
    (extra,) = measure(task.extras, samples, answers, outcomes)
    assert (extra.n, extra.score.value) == (6, 1.0)


@pytest.mark.parametrize(
    ("calls", "runs"),
    [
        ([ToolCall("light", {"room": "kitchen"})], True),
        ([ToolCall("light", {"room": "moon"})], True),
        ([ToolCall("light", {"room": 3})], False),
        ([ToolCall("light", {})], False),
        ([ToolCall("lamp", {"room": "kitchen"})], False),
        ([ToolCall("light", {"room": "kitchen"}), ToolCall("lamp", {})], False),
        ([], False),
    ],
)
def test_a_call_runs_when_its_tool_is_offered_and_takes_its_arguments(
    calls: list[ToolCall], runs: bool
) -> None:
    wanted = Expected(tool_calls=(ToolCall("light", {"room": "kitchen"}),))
    sample = Sample("command/1", (), wanted, (LIGHT,))
    assert CALL_RUNS.holds(sample) and CALL_RUNS.judge is not None
    assert CALL_RUNS.judge(said("", *calls), sample).right is runs


def test_where_no_call_is_due_none_is_counted() -> None:
    assert not CALL_RUNS.holds(Sample("command/2", (), Expected("I have no tool for that."), (LIGHT,)))
