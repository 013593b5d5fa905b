"""GPTQ: steps chosen one input at a time, each error made good by the inputs that are still to come.

    packed, scales = gptq_blocks(weight, gram, 128)

The gram matrix of a layer's inputs says which of them move together; an error of one weight is then nearly
undone by small changes of others before those are rounded themselves. Inputs come in the order of their
size, the largest first, while every block keeps the scale that was fitted to it before.

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
2022, algorithm 1; the order and the fixed scales are the authors' later options act-order and static groups.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from phi4.onnx.calibrate.search import weighted_scales
from phi4.onnx.package.quantise import Blocks, pack_steps, quantise_blocks
from phi4.shapes import FloatArray, IntArray

BITS = 4
DAMPING = 0.03
"""Added to the diagonal, as a part of its mean: inputs that hardly vary must not take all errors.

Squared error of outputs on other inputs of the kind calibrated with, against rounding to nearest, for 384
inputs that move together, then for 384 independent ones (where nothing is to be gained, and chance must not
be followed):

| positions | 0.01 | 0.03 | 0.1 |
|---|---|---|---|
| 512 | 0.20, 1.59 | 0.18, 1.48 | 0.18, 1.27 |
| 8,192 | 0.14, 0.90 | 0.14, 0.90 | 0.16, 0.90 |

Packages of nano differ by less than 2% of their KL divergence between the three.
"""
PANEL = 64
"""Inputs rounded one by one before their errors are added to all later ones in one product."""
ROWS_AT_ONCE = 2048
"""Outputs quantised together; a panel of theirs stays in the processor's cache."""
_SMALL = 64


def gptq_blocks(weight: FloatArray, gram: FloatArray, block_size: int, damping: float = DAMPING) -> Blocks:
    """Quantise to 4 bits in blocks.

    Args:
        weight: `[N, K]` float32.
        gram: `[K, K]` float32, X^T X of the layer's inputs X; its size does not matter.
        block_size: Weights that share a scale.
        damping: See `DAMPING`.

    Returns:
        Packed `[N, blocks, block / 2]` and scales `[N, blocks]`, as `quantise_blocks` has them.
    """
    importance = np.ascontiguousarray(np.diagonal(gram))
    packed, scales = quantise_blocks(weight, BITS, block_size, weighted_scales(importance, block_size))
    if not np.isfinite(scales).all() or not importance.any():
        return packed, scales  # nothing to cancel errors with; wrong weights are refused by their scales
    order = np.argsort(-importance, kind="stable")
    factor = inverse_factor(gram, order, damping)
    for first in range(0, len(weight), ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        steps = _steps(weight[part], scales[part], factor, order, block_size)
        packed[part] = pack_steps(steps, BITS)
    return packed, scales


def _steps(
    weight: FloatArray, scales: FloatArray, factor: FloatArray, order: IntArray, block_size: int
) -> NDArray[np.uint8]:
    """Steps `[n, blocks, block]` of weights `[n, K]`; padding gets the step of 0."""
    middle, columns = 2 ** (BITS - 1), weight.shape[1]
    by_block = np.ascontiguousarray(scales.T)  # [blocks, n]
    divisors = np.where(by_block == 0, np.float32(1), by_block)
    left = np.ascontiguousarray(weight.T[order])  # [K, n], what is still to be stood for
    steps = np.full((by_block.shape[0] * block_size, len(weight)), middle, np.uint8)
    for start in range(0, columns, PANEL):
        stop = min(start + PANEL, columns)
        errors = np.empty((stop - start, len(weight)), np.float32)
        for place in range(start, stop):
            column = int(order[place])
            block, value = column // block_size, left[place]
            step = np.clip(np.rint(value / divisors[block]), -middle, middle - 1)
            steps[column] = (step + middle).astype(np.uint8)
            error = (value - step * by_block[block]) / factor[place, place]
            left[place + 1 : stop] -= factor[place, place + 1 : stop, None] * error
            errors[place - start] = error
        left[stop:] -= factor[start:stop, stop:].T @ errors
    return np.ascontiguousarray(steps.T).reshape(len(weight), -1, block_size)


def inverse_factor(gram: FloatArray, order: IntArray, damping: float) -> FloatArray:
    """Upper triangular U with U^T U the inverse of the damped gram matrix, its rows and columns in `order`.

    With L L^T the matrix taken backwards, U is the inverse of L, backwards again. That is one factorisation
    where inverting first would take three.
    """
    mean = float(np.diagonal(gram).mean())
    backwards = order[::-1]
    turned = gram[np.ix_(backwards, backwards)]
    diagonal = np.einsum("ii->i", turned)  # a view
    while True:
        diagonal += np.float32(damping * mean)
        try:
            return _inverse_lower(turned)[::-1, ::-1]
        except np.linalg.LinAlgError:  # far fewer positions than inputs, and float32
            damping *= 10


def _inverse_lower(matrix: FloatArray) -> FloatArray:
    """Inverse of the Cholesky factor L of a matrix, by halves: nearly all of the work is products.

    numpy has no triangular solver; and one call for the whole would take three times its size in memory.
    """
    size = len(matrix)
    if size <= _SMALL:
        return np.asarray(np.tril(np.linalg.inv(np.linalg.cholesky(matrix))), np.float32)
    half = size // 2
    inverse = np.zeros((size, size), np.float32)
    first, last = inverse[:half, :half], inverse[half:, half:]
    first[...] = _inverse_lower(matrix[:half, :half])
    between = matrix[half:, :half] @ first.T  # of L itself
    last[...] = _inverse_lower(matrix[half:, half:] - between @ between.T)
    inverse[half:, :half] = -(last @ (between @ first))
    return inverse
