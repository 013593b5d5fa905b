"""Claims about the reference sampler, checked against plain probability."""

from __future__ import annotations

import numpy as np
import pytest

from phi4.engine.drawing.sampler import draw, edited, log_softmax, pack, top_candidates, uniform
from phi4.engine.runner import Bias, PackedSampling, Scale
from phi4.errors import InvalidRequest
from phi4.types import SamplingParams

LOGITS = np.array([0.5, 2.0, 2.0, -1.0, 1.0], np.float32)


def test_greedy_takes_the_lower_id_of_a_tie() -> None:
    assert draw(LOGITS, PackedSampling(), position=3) == 1


def test_greedy_respects_the_mask() -> None:
    allowed = np.array([True, False, False, True, False])
    assert draw(LOGITS, PackedSampling(), 0, allowed) == 0


def test_top_k_one_is_greedy_at_any_temperature_and_seed() -> None:
    drawn = {draw(LOGITS, PackedSampling(2.0, 1, 1.0, seed), 7) for seed in range(50)}
    assert drawn == {1}


def test_top_k_keeps_exactly_the_k_best() -> None:
    drawn = {draw(LOGITS, PackedSampling(2.0, 3, 1.0, seed), 7) for seed in range(300)}
    assert drawn == {1, 2, 4}


def test_top_p_keeps_the_shortest_run_that_reaches_it() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    drawn = {draw(logits, PackedSampling(1.0, 0, 0.7, seed), 1) for seed in range(300)}
    assert drawn == {0, 1}


def test_min_p_keeps_what_is_likely_enough_beside_the_best() -> None:
    logits = np.log(np.array([0.5, 0.26, 0.14, 0.1], np.float32))
    for min_p, expected in ((0.5, {0, 1}), (0.27, {0, 1, 2}), (0.0, {0, 1, 2, 3}), (1.0, {0})):
        drawn = {draw(logits, PackedSampling(1.0, 0, 1.0, seed, min_p), 1) for seed in range(400)}
        assert drawn == expected


def test_min_p_judges_at_the_temperature_of_the_draw() -> None:
    logits = np.log(np.array([0.5, 0.26, 0.24], np.float32))
    hot = {draw(logits, PackedSampling(2.0, 0, 1.0, seed, 0.6), 1) for seed in range(300)}
    assert hot == {0, 1, 2}
    assert {draw(logits, PackedSampling(0.5, 0, 1.0, seed, 0.6), 1) for seed in range(300)} == {0}


def test_min_p_of_one_keeps_all_that_are_best() -> None:
    assert {draw(LOGITS, PackedSampling(1.0, 0, 1.0, seed, 1.0), 1) for seed in range(100)} == {1, 2}


def test_logits_are_scaled_then_biased_and_the_models_own_stay() -> None:
    before = LOGITS.copy()
    scale = Scale(np.array([1, 3]), np.array([2.0, 2.0], np.float32))
    bias = Bias(np.array([3, 0]), np.array([1.5, -1.0], np.float32))
    assert edited(LOGITS, bias, scale).tolist() == [-0.5, 1.0, 2.0, -2.0 + 1.5, 1.0]
    assert edited(LOGITS, None, None) is LOGITS
    assert LOGITS.tolist() == before.tolist()


def test_a_bias_cannot_lift_a_forbidden_token() -> None:
    bias = Bias(np.array([1]), np.array([100.0], np.float32))
    allowed = np.array([True, False, False, True, False])
    assert draw(edited(LOGITS, bias, None), PackedSampling(), 0, allowed) == 0


def test_a_tiny_top_p_keeps_one_token() -> None:
    assert {draw(LOGITS, PackedSampling(1.0, 0, 1e-9, seed), 1) for seed in range(50)} == {1}


def test_frequencies_follow_the_softmax_at_the_temperature() -> None:
    logits = np.array([0.0, 1.0, 2.0], np.float32)
    sampling = [PackedSampling(0.7, 0, 1.0, seed) for seed in range(6000)]
    counts = np.bincount([draw(logits, s, 5) for s in sampling], minlength=3) / len(sampling)
    expected = np.exp(log_softmax(logits / np.float32(0.7)))
    np.testing.assert_allclose(counts, expected, atol=0.02)


def test_masked_tokens_are_never_drawn() -> None:
    allowed = np.array([True, False, True, True, False])
    drawn = {draw(LOGITS, PackedSampling(2.0, 0, 1.0, seed), 2, allowed) for seed in range(500)}
    assert drawn == {0, 2, 3}


def test_the_random_number_depends_on_seed_and_position_only() -> None:
    assert uniform(5, 9) == uniform(5, 9)
    assert len({uniform(seed, position) for seed in range(20) for position in range(20)}) == 400


def test_random_numbers_are_uniform() -> None:
    numbers = np.array([uniform(1, position) for position in range(4000)])
    assert numbers.min() >= 0.0 and numbers.max() < 1.0
    counts, _ = np.histogram(numbers, bins=10, range=(0.0, 1.0))
    np.testing.assert_allclose(counts / len(numbers), 0.1, atol=0.02)


def test_the_largest_seed_is_usable() -> None:
    assert 0.0 <= uniform(2**64 - 1, 131071) < 1.0


def test_top_candidates_come_best_first_with_ties_by_id() -> None:
    ids, values = top_candidates(log_softmax(LOGITS), 3)
    assert ids.tolist() == [1, 2, 4]
    assert values[0] == values[1] > values[2]


@pytest.mark.parametrize(
    ("params", "word"),
    [
        (SamplingParams(temperature=-0.1), "temperature"),
        (SamplingParams(temperature=2.5), "temperature"),
        (SamplingParams(temperature=float("nan")), "temperature"),
        (SamplingParams(top_p=0.0), "top_p"),
        (SamplingParams(top_p=1.1), "top_p"),
        (SamplingParams(top_k=-1), "top_k"),
        (SamplingParams(max_new_tokens=0), "max_new_tokens"),
        (SamplingParams(seed=-1), "seed"),
        (SamplingParams(temperature="hot"), "temperature is 'hot'; give a number"),  # type: ignore[arg-type]
        (SamplingParams(top_p=True), "top_p is True"),
        (SamplingParams(top_k=1.5), "top_k is 1.5; give .* whole number"),  # type: ignore[arg-type]
        (SamplingParams(max_new_tokens=2.5), "max_new_tokens is 2.5; give"),  # type: ignore[arg-type]
        (SamplingParams(seed="7"), "seed is '7'; give an integer"),  # type: ignore[arg-type]
        (SamplingParams(min_p=1.5), "min_p is 1.5; give a number from 0 to 1"),
        (SamplingParams(presence_penalty=-2.1), "presence_penalty"),
        (SamplingParams(frequency_penalty=float("inf")), "frequency_penalty"),
        (SamplingParams(repetition_penalty=0.0), "repetition_penalty"),
        (SamplingParams(repetition_penalty=float("nan")), "repetition_penalty"),
        (SamplingParams(logprobs=21), "logprobs is 21; give a whole number from 0 to 20"),
        (SamplingParams(logprobs=True), "logprobs is True"),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(params: SamplingParams, word: str) -> None:
    with pytest.raises(InvalidRequest, match=word):
        pack(params, fresh_seed=0)


def test_numbers_of_numpy_are_numbers() -> None:
    params = SamplingParams(np.float32(0.5), np.int64(3), np.float64(0.5), np.int32(9), np.int64(4))  # type: ignore[arg-type]
    packed = pack(params, fresh_seed=0)
    assert (packed.temperature, packed.top_k, packed.top_p, packed.seed) == (0.5, 3, 0.5, 9)


def test_a_fresh_seed_is_taken_only_without_a_given_one() -> None:
    assert pack(SamplingParams(), fresh_seed=77).seed == 77
    assert pack(SamplingParams(seed=0), fresh_seed=77).seed == 0
