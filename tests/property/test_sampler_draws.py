"""Properties of the reference draw over random logits and parameters."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from phi4.engine.drawing.sampler import draw, ranking
from phi4.engine.runner import PackedSampling

SAMPLING = st.builds(
    PackedSampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_k=st.integers(0, 12),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 2**64 - 1),
    min_p=st.sampled_from([0.0, 0.05, 0.4, 1.0]),
)
LOGITS = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=40).map(
    lambda x: np.array(x, np.float32)
)


@given(LOGITS, SAMPLING, st.integers(0, 131071))
def test_a_draw_is_among_the_k_best_and_repeats(
    logits: np.ndarray, sampling: PackedSampling, position: int
) -> None:
    token = draw(logits, sampling, position)
    assert token == draw(logits, sampling, position)
    better = int((logits > logits[token]).sum())
    assert better < (1 if sampling.temperature == 0 else sampling.top_k or len(logits))


@given(LOGITS, SAMPLING, st.integers(0, 131071))
def test_a_masked_draw_equals_a_draw_from_the_allowed_part(
    logits: np.ndarray, sampling: PackedSampling, position: int
) -> None:
    allowed = np.random.default_rng(sampling.seed % 1000).random(len(logits)) < 0.6
    allowed[position % len(logits)] = True
    ids = np.flatnonzero(allowed)
    assert draw(logits, sampling, position, allowed) == ids[draw(logits[ids], sampling, position)]


@given(LOGITS, SAMPLING, st.integers(0, 131071), st.integers(-3, 3))
def test_a_constant_added_to_whole_logits_changes_nothing(
    logits: np.ndarray, sampling: PackedSampling, position: int, shift: int
) -> None:
    whole = np.round(logits)
    assert draw(whole, sampling, position) == draw(whole + np.float32(shift), sampling, position)


@given(LOGITS, SAMPLING, st.integers(0, 131071))
def test_a_drawn_token_is_as_likely_as_min_p_asks(
    logits: np.ndarray, sampling: PackedSampling, position: int
) -> None:
    token = draw(logits, sampling, position)
    if sampling.temperature and sampling.min_p:
        share = np.exp((float(logits[token]) - float(logits.max())) / sampling.temperature)
        assert share >= sampling.min_p * (1 - 1e-12)


ODD = st.sampled_from([0.0, -0.0, 1.5, -1.5, 1e-40, -1e-40, 3e38, -np.inf])


@given(st.lists(ODD | st.floats(-9, 9, width=32)))
def test_the_ranking_is_that_of_a_stable_sort(values: list[float]) -> None:
    scores = np.array(values, np.float32)
    assert ranking(scores).tolist() == np.argsort(-scores, kind="stable").tolist()
