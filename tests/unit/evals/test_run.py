"""A model that senses passes the bar, one that guesses does not, and every request is made as stated."""

from __future__ import annotations

import pytest

from phi4.errors import InvalidRequest
from phi4.evals.run import Progress, Settings, evaluate

SETTINGS = Settings(n=40, batch=16)


def test_model_that_sees_scores_far_above_every_control(senser, colour_task) -> None:
    (row,) = evaluate(senser, [colour_task], SETTINGS)
    assert row.score.value == 1.0
    assert {c.name: c.score.value for c in row.controls} == {
        "blind": 0.0,
        "wrong medium": 0.0,
        "adapter off": 0.0,
    }
    assert row.blind is not None and row.blind.gain.low > 0.3
    assert row.needs_its_media


def test_model_that_guesses_fails_the_bar_whatever_it_scores(guesser, colour_task) -> None:
    (row,) = evaluate(guesser, [colour_task], SETTINGS)
    assert row.score.value == 0.25
    assert row.blind is not None and row.blind.gain.value == 0.0
    assert not row.needs_its_media


def test_two_media_are_blinded_one_at_a_time(senser, both_task) -> None:
    (row,) = evaluate(senser, [both_task], SETTINGS)
    blind = {c.name: c.score.value for c in row.controls if c.removes_medium}
    assert blind == {"blind (image)": 0.0, "blind (audio)": 0.0}
    assert row.score.value == 1.0


def test_blind_of_two_media_is_the_one_hardest_to_beat(assumer, both_task) -> None:
    (row,) = evaluate(assumer, [both_task], SETTINGS)
    gains = {c.name: c.gain.value for c in row.controls if c.removes_medium}
    assert gains == {"blind (image)": 1.0, "blind (audio)": 0.5}
    assert row.blind is not None and row.blind.name == "blind (audio)"


def test_text_rows_have_no_blind(guesser, text_task) -> None:
    (row,) = evaluate(guesser, [text_task], SETTINGS)
    assert row.blind is None and row.controls == ()
    assert row.score.value == 1.0
    assert row.answer_tokens == 80


def test_rows_are_handed_over_as_they_are_finished(senser, colour_task, text_task) -> None:
    seen: list[tuple[str, int]] = []
    rows = evaluate(
        senser,
        [colour_task, text_task],
        Settings(n=8),
        finished=lambda row: seen.append((row.task, len(senser.requests))),
    )
    assert seen == [("colour", 8 * 4), ("text", 8 * 5)]  # each before the next task was asked
    assert [row.task for row in rows] == ["colour", "text"]


def test_controls_can_be_left_out(senser, colour_task) -> None:
    (row,) = evaluate(senser, [colour_task], Settings(n=8, controls=False))
    assert row.controls == ()
    assert len(senser.requests) == 8


def test_requests_are_greedy_batched_and_carry_the_adapter_override(senser, colour_task) -> None:
    evaluate(senser, [colour_task], SETTINGS)
    assert senser.batches == [16, 16, 8] * 4
    assert all(r.sampling.temperature == 0 and r.sampling.max_new_tokens == 4 for r in senser.requests)
    assert [r.adapters for r in senser.requests] == [None] * 120 + [()] * 40


def test_progress_reaches_its_total(senser, both_task, text_task) -> None:
    seen: list[Progress] = []
    evaluate(senser, [both_task, text_task], Settings(n=10, batch=4), seen.append)
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[-1].done == seen[-1].total == 10 * 6 + 10
    assert {p.condition for p in seen if p.task == "text"} == {"as it is"}


def test_first_wrong_answers_are_kept_word_for_word(guesser, colour_task) -> None:
    (row,) = evaluate(guesser, [colour_task], SETTINGS)
    assert (row.wrong[0].sample, row.wrong[0].expected, row.wrong[0].given) == ("colour/1", "green", "red")


@pytest.mark.parametrize(("n", "batch"), [(0, 8), (10, 0), (-1, 1)])
def test_impossible_settings_are_refused(n: int, batch: int) -> None:
    with pytest.raises(InvalidRequest, match="at least 1"):
        Settings(n=n, batch=batch)
