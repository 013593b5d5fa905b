"""Searched scales never leave more squared error than rounding to nearest, and usually a good deal less."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from phi4.onnx.calibrate.search import best_scales, weighted_scales
from phi4.onnx.package.quantise import ChooseScales, dequantise_blocks, largest_scales, quantise_blocks
from phi4.shapes import FloatArray


def made(kind: str, shape: tuple[int, int] = (40, 300)) -> FloatArray:
    random = np.random.default_rng(0)
    values = {
        "normal": lambda: random.standard_normal(shape),
        "heavy tails": lambda: random.standard_t(3, shape),
        "one-sided": lambda: random.exponential(1.0, shape),
        "flat": lambda: random.uniform(-1, 1, shape),
        "on steps": lambda: random.integers(-8, 8, shape) * 0.25,
        "tiny": lambda: 1e-12 * random.standard_normal(shape),
        "huge": lambda: 1e15 * random.standard_normal(shape),
    }
    return np.asarray(values[kind](), np.float32)


KINDS = ("normal", "heavy tails", "one-sided", "flat", "on steps", "tiny", "huge")


def errors(weight: FloatArray, choose: ChooseScales, bits: int, block: int) -> Any:
    """Errors of single weights, `[N, K]` float64."""
    packed, scales = quantise_blocks(weight, bits, block, choose)
    return dequantise_blocks(packed, scales, bits, weight.shape[1]).astype(np.float64) - weight


def by_block(values: Any, block: int) -> Any:
    padded = np.pad(values, ((0, 0), (0, -values.shape[1] % block)))
    return padded.reshape(len(values), -1, block).sum(axis=-1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [16, 32, 128])
def test_no_block_has_more_error_than_by_rounding_to_nearest(kind: str, bits: int, block: int) -> None:
    weight = made(kind)
    found, nearest = (
        by_block(errors(weight, choose, bits, block) ** 2, block) for choose in (best_scales, largest_scales)
    )
    assert (found <= nearest * (1 + 1e-4) + 1e-45).all()  # sums are of float32 in the search


@pytest.mark.parametrize(("block", "most"), [(32, 0.91), (128, 0.90)])
def test_normally_distributed_weights_lose_a_tenth_less(block: int, most: float) -> None:
    weight = made("normal", (100, 512))
    found, nearest = ((errors(weight, c, 4, block) ** 2).sum() for c in (best_scales, largest_scales))
    assert found < most * nearest


@pytest.mark.parametrize("block", [32, 128])
def test_important_inputs_lose_less_at_the_cost_of_others(block: int) -> None:
    weight = made("normal", (100, 512))
    importance = np.exp(2 * np.random.default_rng(1).standard_normal(512)).astype(np.float32)
    squares = {
        name: errors(weight, choose, 4, block) ** 2
        for name, choose in (
            ("weighted", weighted_scales(importance, block)),
            ("best", best_scales),
            ("nearest", largest_scales),
        )
    }
    weighted = {name: (found * importance).sum() for name, found in squares.items()}
    assert weighted["weighted"] < 0.95 * weighted["best"] < 0.95 * weighted["nearest"]
    assert squares["weighted"].sum() > squares["best"].sum()
    worse = by_block(squares["weighted"] * importance, block) > by_block(
        squares["nearest"] * importance, block
    ) * (1 + 1e-4)
    assert not worse.any()


def test_size_of_the_importance_does_not_matter() -> None:
    weight, importance = made("normal"), np.random.default_rng(1).uniform(0, 1, 300).astype(np.float32)
    scales = [
        quantise_blocks(weight, 4, 32, weighted_scales(np.float32(factor) * importance, 32))[1]
        for factor in (1, 2.0**20, 2.0**-20)
    ]
    np.testing.assert_array_equal(scales[0], scales[1])
    np.testing.assert_array_equal(scales[0], scales[2])


def test_equal_importance_is_no_importance() -> None:
    weight = made("normal", (10, 256))
    same = quantise_blocks(weight, 4, 32, weighted_scales(np.full(256, 7, np.float32), 32))
    for left, right in zip(same, quantise_blocks(weight, 4, 32, best_scales), strict=True):
        np.testing.assert_array_equal(left, right)


def test_inputs_that_never_vary_leave_the_scale_of_rounding_to_nearest() -> None:
    weight, importance = made("normal", (10, 64)), np.ones(64, np.float32)
    importance[:32] = 0
    found = quantise_blocks(weight, 4, 32, weighted_scales(importance, 32))[1]
    nearest = quantise_blocks(weight, 4, 32)[1]
    np.testing.assert_array_equal(found[:, 0], nearest[:, 0])
    assert (found[:, 1] != nearest[:, 1]).any()
    none = quantise_blocks(weight, 4, 32, weighted_scales(np.zeros(64, np.float32), 32))[1]
    np.testing.assert_array_equal(none, nearest)


def test_zeros_stay_zeros_and_weights_on_steps_come_back_exactly() -> None:
    weight = np.zeros((3, 32), np.float32)
    weight[1, :16] = np.arange(-8, 8)
    packed, scales = quantise_blocks(weight, 4, 16, best_scales)
    np.testing.assert_allclose(dequantise_blocks(packed, scales, 4, 32), weight, rtol=1e-6)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_scale_of_weights_that_are_not_finite_tells_so(wrong: float) -> None:
    weight = made("normal", (2, 32))
    weight[1, 20] = wrong
    for choose in (best_scales, weighted_scales(np.ones(32, np.float32), 16)):
        scales = quantise_blocks(weight, 4, 16, choose)[1]
        assert np.isfinite(scales).tolist() == [[True, True], [True, False]]


def test_type_the_weight_is_stored_in_changes_nothing() -> None:
    stored = made("normal").astype(ml_dtypes.bfloat16)
    for left, right in zip(
        quantise_blocks(stored, 4, 32, best_scales),
        quantise_blocks(stored.astype(np.float32), 4, 32, best_scales),
        strict=True,
    ):
        np.testing.assert_array_equal(left, right)
