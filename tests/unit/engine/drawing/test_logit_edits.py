"""Bias and penalties as sparse vectors: what they hold after each token, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from phi4.engine.drawing.logit_edits import MAX_BIASED_TOKENS, LogitEdits, checked_bias
from phi4.errors import InvalidRequest
from phi4.types import SamplingParams

VOCAB = 50


def edits(prompt: tuple[int, ...] = (), **params: Any) -> LogitEdits:
    return LogitEdits(SamplingParams(**params), prompt, VOCAB)


def added(made: LogitEdits) -> dict[int, float]:
    bias = made.bias()
    return {} if bias is None else dict(zip(bias.ids.tolist(), bias.values.tolist(), strict=True))


def test_a_plain_request_edits_nothing() -> None:
    made = edits((1, 2))
    made.push(3)
    assert made.bias() is None and made.scale() is None and not made.follows_draws


def test_a_bias_stays_the_same_and_lets_tokens_be_guessed() -> None:
    made = edits(logit_bias={3: 1.5, 7: -100})
    made.push(3)
    assert added(made) == {3: 1.5, 7: -100.0}
    assert not made.follows_draws


def test_presence_counts_once_and_frequency_each_time_in_the_answer_alone() -> None:
    made = edits((9, 9), presence_penalty=0.5, frequency_penalty=0.25, logit_bias={4: 1.0})
    assert added(made) == {4: 1.0}
    for token in (4, 4, 6):
        made.push(token)
    assert added(made) == {4: 1.0 - 0.5 - 0.5, 6: -0.75}
    assert made.follows_draws


def test_repetition_scales_what_stands_in_prompt_or_answer() -> None:
    made = edits((9, 2, 9), repetition_penalty=1.25)
    made.push(5)
    scale = made.scale()
    assert scale is not None and made.follows_draws and made.bias() is None
    assert sorted(scale.ids.tolist()) == [2, 5, 9]
    assert scale.factors.dtype == np.float32 and set(scale.factors.tolist()) == {1.25}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({VOCAB: 1.0}, "token 50; give ids from 0 to 49"),
        ({-1: 1.0}, "token -1"),
        ({"3": 1.0}, "token '3'"),
        ({True: 1.0}, "token True"),
        ({3: 101}, "token 3 is 101; give a number from -100 to 100"),
        ({3: float("nan")}, "is nan"),
        ({3: True}, "is True"),
        ({3: "x" * 1000}, r"is 'x{59}\.\.\.; give"),
        ([3], r"logit_bias is \[3\]; give a mapping"),
        ({n: 0.0 for n in range(MAX_BIASED_TOKENS + 1)}, "names 1025 tokens; give at most 1024"),
    ],
)
def test_a_bias_that_cannot_be_is_refused_by_name(given: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        checked_bias(given, VOCAB)


def test_numbers_of_numpy_are_numbers() -> None:
    assert checked_bias({np.int64(3): np.float32(0.5)}, VOCAB) == {3: 0.5}
