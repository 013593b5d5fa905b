"""How long a turn of the engine may take."""

from __future__ import annotations

from phi4.server.worker.pace import MARGIN, Pace


def test_nothing_counts_as_hung_before_the_operators_limit() -> None:
    pace = Pace(5.0)
    pace.saw_step(0.01)
    pace.saw_encoding(0.02, 10)
    pace.began(1, 1000)
    assert pace.allowed_s == MARGIN * (0.01 + 0.002 * 1000)
    pace.ended(1)
    assert pace.allowed_s == 5.0


def test_slow_steps_are_given_four_times_what_they_take() -> None:
    pace = Pace(5.0)
    pace.saw_step(1.0)
    assert pace.allowed_s == 5.0
    pace.saw_step(3.0)
    pace.saw_step(2.0)
    assert pace.allowed_s == 12.0


def test_the_largest_medium_under_way_decides() -> None:
    pace = Pace(1.0)
    pace.saw_encoding(1.0, 100)
    for number, largest in ((1, 200), (2, 1000), (3, 0)):
        pace.began(number, largest)
    assert pace.allowed_s == MARGIN * 10
    pace.ended(2)
    assert pace.allowed_s == MARGIN * 2
    for number in (1, 1, 3, 99):
        pace.ended(number)
    assert pace.allowed_s == 1.0


def test_steps_that_grow_with_their_prompts_raise_the_limit_before_they_reach_it() -> None:
    pace = Pace(5.0)
    pace.saw_step(1.0)
    step_s = 1.0
    for _ in range(20):
        assert step_s < pace.allowed_s
        pace.saw_turn(step_s)
        step_s *= 1.5
    for _ in range(3000):
        pace.saw_turn(0.5)
    assert pace.allowed_s == 5.0


def test_a_turn_that_encoded_a_medium_is_no_slow_step() -> None:
    pace = Pace(5.0)
    pace.saw_encoding(1.0, 10)
    pace.began(1, 100)
    pace.saw_turn(10.5)
    pace.ended(1)
    assert pace.allowed_s == 5.0
