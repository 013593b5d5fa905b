"""Scales of blocks with less squared error than those of the largest values.

    packed, scales = quantise_blocks(weight, 4, 128, best_scales)
    packed, scales = quantise_blocks(weight, 4, 128, weighted_scales(importance, 128))

Each block tries a few ranges, which clip its largest values more or less. For the steps of each, the scale
with the least error is known in closed form; the best pair wins. Blocks stay symmetric.
"""

from __future__ import annotations

import numpy as np

from phi4.onnx.package.quantise import ChooseScales, largest_scales, nearest_steps
from phi4.shapes import FloatArray

FACTORS = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1)
"""Ranges to try, as parts of the largest value's.

On normally distributed weights these nine leave 0.88 of the squared error of rounding to nearest in blocks of
128 (0.89 in blocks of 32); 33 of each sign would leave less than half a percent less.
"""
_LEAST = np.float32(1e-30)


def best_scales(values: FloatArray, bits: int) -> FloatArray:
    """Scale of each block `[n, blocks]` with the least squared error of its values `[n, blocks, block]`.

    Of a block with values that are not finite, the scale is not finite either.
    """
    return _best(values, bits, np.ones((), np.float32))


def weighted_scales(importance: FloatArray, block_size: int) -> ChooseScales:
    """The same where errors of some inputs weigh more.

    Args:
        importance: `[K]`, 0 or more; by its mean square, an input counts as it does in the output.
        block_size: Weights that share a scale.
    """
    blocks = -(-len(importance) // block_size)
    padded = np.zeros(blocks * block_size, np.float32)
    padded[: len(importance)] = importance / max(float(importance.max(initial=0.0)), 1e-30)
    weights = padded.reshape(blocks, block_size)

    def choose(values: FloatArray, bits: int) -> FloatArray:
        return _best(values, bits, weights)

    return choose


def _best(values: FloatArray, bits: int, weights: FloatArray) -> FloatArray:
    first = largest_scales(values, bits)
    weighted = values * weights
    scales, most = first, np.full(first.shape, -1.0, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # of weights that are not finite: their scales tell
        for factor in FACTORS:
            steps = _signed(values, first * np.float32(factor), bits)
            along = np.asarray((steps * weighted).sum(axis=-1), np.float32)
            square = np.maximum((steps * steps * weights).sum(axis=-1), _LEAST)
            # Of these steps the best scale leaves the error sum(w v^2) - along^2 / square.
            gain = along * along / square
            better = gain > most
            scales = np.where(better, along / square, scales)
            most = np.where(better, gain, most)
        # The sums above are rounded: what counts is the error itself, which is never above that of `first`.
        kept = _error(values, scales, bits, weights) < _error(values, first, bits, weights)
    return np.asarray(np.where(kept, scales, first), np.float32)


def _error(values: FloatArray, scales: FloatArray, bits: int, weights: FloatArray) -> FloatArray:
    left = values - _signed(values, scales, bits) * scales[..., None]
    return np.asarray((left * left * weights).sum(axis=-1), np.float32)


def _signed(values: FloatArray, scales: FloatArray, bits: int) -> FloatArray:
    """Nearest steps around 0."""
    return nearest_steps(values, scales, bits).astype(np.float32) - np.float32(2 ** (bits - 1))
