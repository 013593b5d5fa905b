"""Intervals agree with published values and behave at the edges."""

from __future__ import annotations

import numpy as np
import pytest

from phi4.evals.intervals import Estimate, difference, error_rate, is_proportion, newcombe, score, wilson
from phi4.evals.scorers import Outcome

RIGHT, WRONG = Outcome(0, 1), Outcome(1, 1)


def edits(rate: float, n: int = 300, seed: int = 0) -> list[Outcome]:
    """n items of 8 words with edits at about this rate."""
    drawn = np.random.default_rng(seed).binomial(8, rate, size=n)
    return [Outcome(int(errors), 8) for errors in drawn]


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_matches_newcombes_published_table(successes: int, n: int, low: float, high: float) -> None:
    # Source: R. G. Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I.
    estimate = wilson(successes, n)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=5e-5)


def test_newcombe_difference_matches_the_published_example() -> None:
    # Source: R. G. Newcombe 1998 (difference), table II, 56/70 against 48/80, method 10.
    estimate = newcombe(wilson(56, 70), wilson(48, 80))
    assert estimate.value == pytest.approx(0.2)
    assert (estimate.low, estimate.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_perfect_score_still_has_a_width() -> None:
    estimate = score([RIGHT] * 50)
    assert estimate.value == estimate.high == 1.0
    assert 0.9 < estimate.low < 1.0


def test_difference_of_perfect_and_hopeless_excludes_zero_but_not_all_doubt() -> None:
    estimate = difference([RIGHT] * 300, [WRONG] * 300)
    assert estimate.value == 1.0
    assert 0.97 < estimate.low < 1.0
    assert estimate.excludes_zero


def test_difference_of_equal_answers_contains_zero() -> None:
    half = [RIGHT, WRONG] * 20
    assert not difference(half, half).excludes_zero
    assert not difference(edits(0.2), edits(0.2)).excludes_zero


def test_error_rate_weighs_items_by_their_length() -> None:
    assert error_rate([Outcome(1, 1), Outcome(0, 9)]) == pytest.approx(0.1)


def test_score_of_runaway_answers_is_zero_not_negative() -> None:
    estimate = score([Outcome(30, 5), Outcome(12, 5)])
    assert estimate == Estimate(0.0, 0.0, 0.0)


def test_texts_all_faultless_or_all_hopeless_get_an_interval_without_width_as_documented() -> None:
    assert score([Outcome(0, 8)] * 300) == Estimate(1.0, 1.0, 1.0)
    assert score([Outcome(9, 8)] * 300) == Estimate(0.0, 0.0, 0.0)


def test_bootstrap_width_is_near_the_normal_approximation() -> None:
    outcomes = edits(0.15)
    estimate = score(outcomes)
    rates = np.array([o.errors / o.length for o in outcomes])  # equal lengths, so the ratio is a plain mean
    half = 1.96 * rates.std(ddof=1) / np.sqrt(len(rates))
    assert estimate.value - estimate.low == pytest.approx(half, rel=0.15)
    assert estimate.high - estimate.value == pytest.approx(half, rel=0.15)


def test_pairing_narrows_the_interval_of_a_difference() -> None:
    hard = edits(0.3, seed=1)
    control = [Outcome(min(8, o.errors + 1), 8) for o in hard]  # same items, a little worse on each
    shuffled = [control[i] for i in np.random.default_rng(2).permutation(len(control))]
    paired, unpaired = difference(hard, control), difference(hard, shuffled)
    assert paired.high - paired.low < 0.5 * (unpaired.high - unpaired.low)


def test_same_answers_always_give_the_same_interval() -> None:
    assert score(edits(0.1)) == score(edits(0.1))
    assert difference(edits(0.1), edits(0.5)) == difference(edits(0.1), edits(0.5))


def test_edit_counts_are_not_taken_for_right_or_wrong() -> None:
    assert is_proportion([RIGHT, WRONG])
    assert not is_proportion([RIGHT, Outcome(0, 4)])
    assert not is_proportion([RIGHT, Outcome(2, 1)])
