"""95% intervals: of a score, and of the difference between two scores on the same items.

Right-or-wrong tasks get Wilson's interval and Newcombe's interval for a difference; both stay honest
at 0% and 100%. Error-rate tasks are ratios of sums (edits over lengths) and get the percentile bootstrap
over items, paired for differences, with a fixed seed: the same answers always give the same interval.
The bootstrap knows the items drawn and no others: where all of them are without an error, or all so bad
that every resample is clipped to 0, its interval has no width. "0.0% (0.0 to 0.0)" then speaks of these
items alone and is no certainty about others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from phi4.evals.scorers import Outcome
from phi4.shapes import AnyArray

Z_95 = 1.959963984540054
"""Two-sided 95% point of the standard normal distribution."""

_RESAMPLES = 4000
_SEED = 20_260_101


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """True when zero is outside the interval."""
        return self.low > 0 or self.high < 0


def error_rate(outcomes: Sequence[Outcome]) -> float:
    """Sum of errors over sum of lengths; above 1 when answers are much too long."""
    return sum(o.errors for o in outcomes) / sum(o.length for o in outcomes)


def score(outcomes: Sequence[Outcome]) -> Estimate:
    """1 - error rate, clipped to [0, 1], with its interval; chooses the method by the kind of outcomes."""
    if is_proportion(outcomes):
        return wilson(sum(o.right for o in outcomes), len(outcomes))
    drawn = _resampled_scores(outcomes, _draws(len(outcomes)))
    return Estimate(max(0.0, 1.0 - error_rate(outcomes)), *_percentiles(drawn))


def difference(outcomes: Sequence[Outcome], control: Sequence[Outcome]) -> Estimate:
    """Score of `outcomes` minus score of `control`; both judge the same items in the same order."""
    assert len(outcomes) == len(control), "paired outcomes must be of one length"
    if is_proportion(outcomes):
        return newcombe(score(outcomes), score(control))
    draws = _draws(len(outcomes))  # the same items for both: that is what pairs them
    value = score(outcomes).value - score(control).value
    drawn = _resampled_scores(outcomes, draws) - _resampled_scores(control, draws)
    return Estimate(value, *_percentiles(drawn))


def is_proportion(outcomes: Sequence[Outcome]) -> bool:
    """True when every outcome is right or wrong rather than a count of edits."""
    return all(o.length == 1 and o.errors in (0, 1) for o in outcomes)


def wilson(successes: int, n: int) -> Estimate:
    """Wilson's score interval of a proportion.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    assert 0 <= successes <= n and n > 0
    p, z2 = successes / n, Z_95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # Exact ends: at 0 and n the formula's rounding would leave a bound of 1e-17 on the wrong side.
    return Estimate(p, 0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half)


def newcombe(a: Estimate, b: Estimate) -> Estimate:
    """Interval of a difference of two proportions from their own intervals (square-and-add).

    Treats the two as independent. Ours are paired and mostly positively related, so the interval is a
    little too wide rather than too narrow.

    Source: R. G. Newcombe, "Interval estimation for the difference between independent proportions", 1998.
    """
    value = a.value - b.value
    below = sqrt((a.value - a.low) ** 2 + (b.high - b.value) ** 2)
    above = sqrt((a.high - a.value) ** 2 + (b.value - b.low) ** 2)
    return Estimate(value, value - below, value + above)


def _draws(n: int) -> AnyArray:
    """`[resamples, n]` item numbers, with replacement, the same on every call."""
    return np.random.default_rng(_SEED).integers(0, n, size=(_RESAMPLES, n))


def _resampled_scores(outcomes: Sequence[Outcome], draws: AnyArray) -> AnyArray:
    """`[resamples]` scores of the drawn items."""
    errors = np.array([o.errors for o in outcomes])[draws].sum(axis=1)
    lengths = np.array([o.length for o in outcomes])[draws].sum(axis=1)
    return np.asarray(np.maximum(0.0, 1.0 - errors / lengths))


def _percentiles(drawn: AnyArray) -> tuple[float, float]:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)
