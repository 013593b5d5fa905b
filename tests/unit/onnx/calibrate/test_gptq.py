"""GPTQ loses less of the output than rounding where inputs move together, and keeps the layout of blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from phi4.onnx.calibrate import gptq
from phi4.onnx.calibrate.gptq import gptq_blocks, inverse_factor
from phi4.onnx.calibrate.search import best_scales, weighted_scales
from phi4.onnx.package.quantise import dequantise_blocks, quantise_blocks
from phi4.shapes import FloatArray


def correlated(rows: int, columns: int, seed: int = 0) -> FloatArray:
    """Inputs that follow a few causes, some of them much larger than others."""
    mixing = np.random.default_rng(7)
    count = max(1, columns // 8)
    causes = mixing.standard_normal((count, columns))
    sizes = np.exp(0.7 * mixing.standard_normal(columns))
    random = np.random.default_rng(seed)
    common = random.standard_normal((rows, count)) @ causes / np.sqrt(count)
    return np.asarray((common + 0.4 * random.standard_normal((rows, columns))) * sizes, np.float32)


def normal(shape: tuple[int, ...], seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def lost(weight: FloatArray, blocks: Any, inputs: FloatArray) -> float:
    """Squared error of the outputs."""
    back = dequantise_blocks(*blocks, 4, weight.shape[1])
    return float(np.square((back - weight) @ inputs.T).sum())


@pytest.mark.parametrize("block", [16, 32, 128])
@pytest.mark.parametrize("columns", [96, 200])
def test_outputs_on_other_inputs_of_the_kind_lose_much_less(block: int, columns: int) -> None:
    weight, seen, unseen = (
        normal((48, columns)),
        correlated(1500, columns, 1),
        correlated(700, columns, 2),
    )
    gram = seen.T @ seen
    found = lost(weight, gptq_blocks(weight, gram, block), unseen)
    importance = np.diagonal(gram).copy()
    others = {
        "nearest": quantise_blocks(weight, 4, block),
        "searched": quantise_blocks(weight, 4, block, best_scales),
        "weighted": quantise_blocks(weight, 4, block, weighted_scales(importance, block)),
    }
    for name, blocks in others.items():
        assert found < 0.5 * lost(weight, blocks, unseen), name


@pytest.mark.parametrize("columns", [64, 40, 7])
def test_independent_inputs_leave_nothing_to_make_good(columns: int) -> None:
    """Every weight is on its nearest step: layout, order and padding are those of `quantise_blocks`."""
    weight = normal((6, columns))
    sizes = np.random.default_rng(3).uniform(0.5, 2, columns).astype(np.float32)
    found = gptq_blocks(weight, np.diag(sizes), 16)
    expected = quantise_blocks(weight, 4, 16, weighted_scales(sizes, 16))
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(left, right)


def test_rows_do_not_touch_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, inputs = normal((9, 64)), correlated(400, 64)
    together = gptq_blocks(weight, inputs.T @ inputs, 32)
    monkeypatch.setattr(gptq, "ROWS_AT_ONCE", 4)
    apart = gptq_blocks(weight, inputs.T @ inputs, 32)
    np.testing.assert_array_equal(together[1], apart[1])
    # Products of other widths may round otherwise in the last bit, which moves a weight between two steps.
    assert (together[0] != apart[0]).mean() < 0.02


def test_errors_carried_on_at_once_or_later_come_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, inputs = normal((20, 150)), correlated(900, 150)
    gram, losses = inputs.T @ inputs, []
    for panel in (1, 16, 64, 1000):
        monkeypatch.setattr(gptq, "PANEL", panel)
        losses.append(lost(weight, gptq_blocks(weight, gram, 32), inputs))
    assert max(losses) < 1.03 * min(losses), losses


def test_same_weights_and_inputs_give_the_same_bytes() -> None:
    weight, inputs = normal((16, 96)), correlated(500, 96)
    for left, right in zip(
        gptq_blocks(weight, inputs.T @ inputs, 32), gptq_blocks(weight, inputs.T @ inputs, 32), strict=True
    ):
        assert left.tobytes() == right.tobytes()


def test_size_of_the_gram_matrix_does_not_matter() -> None:
    weight, inputs = normal((8, 64)), correlated(500, 64)
    gram = inputs.T @ inputs
    for left, right in zip(
        gptq_blocks(weight, gram, 32), gptq_blocks(weight, np.float32(2.0**12) * gram, 32), strict=True
    ):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("columns", [5, 64, 65, 200])
def test_factor_is_upper_and_its_square_the_inverse(columns: int) -> None:
    inputs = correlated(4 * columns, columns).astype(np.float32)
    gram = inputs.T @ inputs
    order = np.random.default_rng(0).permutation(columns)
    factor = inverse_factor(gram, order, 0.01)
    assert not np.tril(factor, -1).any()
    damped = gram[np.ix_(order, order)].astype(np.float64) + 0.01 * np.diagonal(gram).mean() * np.eye(columns)
    np.testing.assert_allclose(factor.T @ factor @ damped, np.eye(columns), atol=5e-3)


def test_fewer_positions_than_inputs_are_enough_to_go_on() -> None:
    weight, inputs = normal((8, 128)), correlated(3, 128)
    packed, scales = gptq_blocks(weight, inputs.T @ inputs, 32)
    assert np.isfinite(dequantise_blocks(packed, scales, 4, 128)).all()


def test_gram_matrix_that_is_slightly_wrong_is_damped_until_it_works() -> None:
    gram = np.ones((64, 64), np.float32)
    gram -= np.float32(0.5) * np.eye(64, dtype=np.float32)  # has negative eigenvalues
    factor = inverse_factor(gram, np.arange(64), 0.01)
    assert np.isfinite(factor).all() and (np.diagonal(factor) > 0).all()


def test_inputs_that_never_vary_are_rounded_to_nearest() -> None:
    weight = normal((4, 64))
    found = gptq_blocks(weight, np.zeros((64, 64), np.float32), 32)
    for left, right in zip(found, quantise_blocks(weight, 4, 32), strict=True):
        np.testing.assert_array_equal(left, right)
    inputs = correlated(400, 64)
    inputs[:, 10] = 0
    assert np.isfinite(gptq_blocks(weight, inputs.T @ inputs, 32)[1]).all()


def test_block_of_zeros_stays_zero_while_errors_pass_over_it() -> None:
    weight, inputs = 10 * normal((6, 64)), correlated(400, 64)
    weight[2, 32:] = 0
    gram = inputs.T @ inputs
    back = dequantise_blocks(*gptq_blocks(weight, gram, 32), 4, 64)
    assert not back[2, 32:].any() and back[2, :32].any() and back[1, 32:].any()
    assert np.isfinite(back).all()


def test_weights_that_are_not_finite_are_told_by_their_scales() -> None:
    weight, inputs = normal((4, 64)), correlated(400, 64)
    weight[2, 40] = np.nan
    scales = gptq_blocks(weight, inputs.T @ inputs, 32)[1]
    assert np.isfinite(scales).tolist() == [[True, True], [True, True], [True, False], [True, True]]
