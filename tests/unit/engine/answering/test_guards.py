"""What is a loop and what is not, to the token."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest

from phi4.engine.answering.guards import LoopGuard, LoopLimits
from phi4.errors import InvalidRequest


def stops_after(tokens: Iterable[int], limits: LoopLimits | None = None) -> int | None:
    """Tokens drawn when the guard ends the answer."""
    guard = LoopGuard(limits or LoopLimits())
    for number, token in enumerate(tokens, 1):
        if guard.check(token, number) == "repetition":
            return number
    return None


def test_one_token_for_ever_ends_after_48() -> None:
    assert stops_after(itertools.repeat(7)) == 48


@pytest.mark.parametrize(("period", "ends"), [(2, 48), (16, 48), (17, 51), (64, 192)])
def test_a_run_ends_with_its_third_repetition_but_not_before_48_tokens(period: int, ends: int) -> None:
    assert stops_after(itertools.cycle(range(period))) == ends


def test_what_was_said_before_the_loop_does_not_matter() -> None:
    before = list(range(1000, 1500))
    assert stops_after([*before, *([1, 2, 3] * 100)]) == 500 + 48


def test_longer_runs_than_64_are_not_looked_for() -> None:
    assert stops_after(list(range(65)) * 20) is None


def test_one_other_token_begins_the_count_anew() -> None:
    assert stops_after([*([1, 2] * 23), 9, *([1, 2] * 23), 9, *([1, 2] * 20)]) is None


def test_random_text_is_no_loop() -> None:
    assert stops_after(np.random.default_rng(0).integers(0, 40, 5000).tolist()) is None


def test_a_loop_late_in_a_long_answer_is_found_to_the_token() -> None:
    before = np.random.default_rng(1).integers(0, 10_000, 5 * 512).tolist()
    for cut in (511, 512, 513, 2 * 512 - 20, 5 * 512):
        assert stops_after([*before[:cut], *itertools.islice(itertools.cycle(range(60)), 400)]) == cut + 180


def test_limits_of_ones_own_hold() -> None:
    assert stops_after(itertools.repeat(7), LoopLimits(4, 2, 5)) == 5
    assert stops_after(itertools.cycle(range(4)), LoopLimits(4, 2, 5)) == 8
    assert stops_after(list(range(5)) * 9, LoopLimits(4, 2, 5)) is None


@pytest.mark.parametrize("wrong", [(0, 3, 48), (64, 1, 48), (64, 3, 1)])
def test_limits_that_would_end_every_answer_are_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidRequest, match="switch the guard off"):
        LoopLimits(*wrong)
