"""Quantised weights stand for the nearest steps, whatever their shape, and no processor saturates on them."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from phi4.onnx.package import quantise
from phi4.onnx.package.quantise import dequantise_blocks, quantise_blocks, quantise_channels
from phi4.shapes import FloatArray

SHAPES = {"whole blocks": (6, 64), "odd K": (5, 33), "K below a block": (3, 7), "one column": (4, 1)}


def normal(shape: tuple[int, ...], seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [16, 32, 128])
def test_every_weight_is_within_half_a_step_of_what_it_stands_for(
    bits: int, block: int, shape: tuple[int, int]
) -> None:
    weight = normal(shape)
    packed, scales = quantise_blocks(weight, bits, block)
    blocks = -(-shape[1] // block)
    assert packed.shape == (shape[0], blocks, block * bits // 8) and scales.shape == (shape[0], blocks)
    step = np.abs(np.repeat(scales, block, axis=1)[:, : shape[1]])
    back = dequantise_blocks(packed, scales, bits, shape[1])
    assert back.flags.c_contiguous and back.dtype == np.float32  # rows of it are bound to a session
    error = np.abs(back - weight)
    # The last step above zero is missing, so a value of the other sign than the largest may lie a step away.
    assert (error <= step * 1.0001).all()
    inside = np.abs(weight) <= step * (2 ** (bits - 1) - 1)
    assert (error[inside] <= step[inside] * 0.5001).all()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_largest_value_of_a_block_is_kept_exactly(bits: int, sign: float) -> None:
    weight = np.float32(sign) * np.array([[0.1, 1.0, -0.7, 0.2] * 4], np.float32)
    packed, scales = quantise_blocks(weight, bits, 16)
    assert dequantise_blocks(packed, scales, bits, 16)[0, 1] == weight[0, 1]


def test_weights_that_lie_on_steps_come_back_exactly() -> None:
    steps = np.arange(-8, 8, dtype=np.float32)
    weight = np.stack([steps * np.float32(0.25), steps[::-1] * np.float32(-3.0)])
    packed, scales = quantise_blocks(weight, 4, 16)
    np.testing.assert_array_equal(dequantise_blocks(packed, scales, 4, 16), weight)


def test_block_of_zeros_stays_zero_and_spoils_no_other() -> None:
    weight = normal((2, 48))
    weight[0, 16:32] = 0
    for bits in (4, 8):
        packed, scales = quantise_blocks(weight, bits, 16)
        back = dequantise_blocks(packed, scales, bits, 48)
        assert not back[0, 16:32].any() and np.isfinite(back).all()
        assert back[0, :16].any() and back[0, 32:].any()


def test_first_of_two_values_stands_in_the_low_half_of_a_byte() -> None:
    weight = np.zeros((1, 16), np.float32)
    weight[0, :4] = (-8, 1, 2, 3)
    packed, scales = quantise_blocks(weight, 4, 16)
    assert scales[0, 0] == 1.0
    assert packed[0, 0, :3].tolist() == [0 | 9 << 4, 10 | 11 << 4, 8 | 8 << 4]


@pytest.mark.parametrize("kind", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_type_the_weight_is_stored_in_changes_nothing(kind: Any) -> None:
    stored = normal((4, 40)).astype(kind)
    for bits in (4, 8):
        for left, right in zip(
            quantise_blocks(stored, bits, 16),
            quantise_blocks(stored.astype(np.float32), bits, 16),
            strict=True,
        ):
            np.testing.assert_array_equal(left, right)


def test_rows_quantised_together_do_not_touch_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = normal((9, 20))
    together = (*quantise_blocks(weight, 4, 16), *quantise_channels(weight))
    monkeypatch.setattr(quantise, "VALUES_AT_ONCE", 41)  # two rows at a time, the last one alone
    apart = (*quantise_blocks(weight, 4, 16), *quantise_channels(weight))
    for left, right in zip(together, apart, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("shape", [(8, 64), (5, 33), (3, 1)])
def test_channels_are_within_half_a_step_of_what_they_stand_for(shape: tuple[int, int]) -> None:
    weight = normal(shape)
    quantised, scales = quantise_channels(weight)
    assert quantised.dtype == np.int8 and scales.shape == (shape[0],)
    error = np.abs(quantised * scales[:, None] - weight)
    assert (error <= scales[:, None] * 0.5001).all()


def hardest_sums(quantised: Any) -> Any:
    """The most and the least that two neighbours can make of two uint8 activations from 1 to 255."""
    pairs = np.pad(quantised.astype(np.int64), ((0, 0), (0, quantised.shape[1] % 2)))
    pairs = pairs.reshape(len(pairs), -1, 2)
    most = np.where(pairs > 0, 255, 1) * pairs
    least = np.where(pairs > 0, 1, 255) * pairs
    return most.sum(-1).max(), least.sum(-1).min()


@pytest.mark.parametrize("name", ["normal", "flat", "all at the limit", "one pair"])
def test_no_two_neighbours_saturate_sixteen_bits(name: str) -> None:
    weight = {
        "normal": normal((64, 129)),
        "flat": np.random.default_rng(1).uniform(-1, 1, (64, 128)).astype(np.float32),
        "all at the limit": np.where(normal((64, 64)) > 0, np.float32(1), np.float32(-1)),
        "one pair": np.concatenate([np.full((1, 2), -1.0), np.full((1, 30), 0.01)], axis=1).astype(
            np.float32
        ),
    }[name]
    quantised, _ = quantise_channels(weight)
    most, least = hardest_sums(quantised)
    assert least >= -(2**15) and most < 2**15


def test_a_channel_whose_neighbours_differ_in_sign_uses_the_whole_range() -> None:
    quantised, scales = quantise_channels(np.array([[1.0, -1.0, 0.5, -0.25]], np.float32))
    assert quantised.tolist() == [[127, -127, 64, -32]]
    assert scales[0] == np.float32(1) / np.float32(127)


def test_channel_of_zeros_stays_zero() -> None:
    quantised, scales = quantise_channels(np.zeros((2, 6), np.float32))
    assert not quantised.any() and np.isfinite(scales).all()
    assert not (quantised * scales[:, None]).any()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_scale_of_weights_that_are_not_finite_tells_so(wrong: float) -> None:
    weight = normal((2, 32))
    weight[1, 20] = wrong
    assert not np.isfinite(quantise_blocks(weight, 4, 16)[1][1, 1])
    assert np.isfinite(quantise_blocks(weight, 4, 16)[1][0]).all()
    assert np.isfinite(quantise_channels(weight)[1]).tolist() == [True, False]
