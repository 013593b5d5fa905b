"""Every task asks what its row says, of held-out records, and a perfect answer gets a perfect score."""

from __future__ import annotations

import pytest

from phi4.errors import InvalidRequest
from phi4.evals.controls import media_of
from phi4.evals.scorers import Outcome
from phi4.evals.tasks import TASKS, choose
from phi4.types import Completion, Timing, Usage


def perfect(expected) -> Completion:
    return Completion(expected.text, (), expected.tool_calls, "stop", Usage(1, 1), Timing())


@pytest.mark.parametrize("name", list(TASKS))
def test_right_answer_scores_full_and_silence_scores_nothing(name: str) -> None:
    task = TASKS[name]
    for sample in task.samples(3):
        assert task.scorer(perfect(sample.expected), sample.expected).right
        mute = task.scorer(Completion("", (), (), "stop", Usage(1, 1), Timing()), sample.expected)
        assert mute == Outcome(mute.length, mute.length)


@pytest.mark.parametrize("name", list(TASKS))
def test_samples_hold_the_media_their_task_declares(name: str) -> None:
    task = TASKS[name]
    for sample in task.samples(2):
        kinds = tuple(kind for kind in ("image", "audio") if media_of(sample, kind))
        assert kinds == task.media
        assert "/test/" in sample.id


def test_samples_are_the_same_every_time_and_longer_runs_begin_alike() -> None:
    task = TASKS["speech_salad"]
    few, more = task.samples(2), task.samples(4)
    assert [s.id for s in few] == [s.id for s in more[:2]]
    assert (media_of(few[0], "audio")[0] == media_of(more[0], "audio")[0]).all()


def test_sentences_and_salad_are_different_records() -> None:
    sentences = {s.id for s in TASKS["speech_sentences"].samples(4)}
    assert not sentences & {s.id for s in TASKS["speech_salad"].samples(4)}


def test_tasks_are_chosen_by_name_in_the_order_asked_for() -> None:
    assert [t.name for t in choose(["sums", "read_text"])] == ["sums", "read_text"]
    assert choose() == list(TASKS.values())


def test_unknown_task_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match=r"unknown task 'poems'.*read_text"):
        choose(["poems"])
