"""Round-to-nearest quantisation of weights, in numpy, a few rows at a time.

Two forms: blocks of 4 or 8 bits along the input (`MatMulNBits`), and int8 per output channel
(`MatMulIntegerToFloat`). Both are symmetric: the zero point is the middle, so no zero points are stored.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from phi4.shapes import AnyArray, FloatArray

ROWS_AT_ONCE = 4096
"""Output rows quantised together; bounds the float32 copies a 200,064-row table would need."""


def quantise_blocks(weight: AnyArray, bits: int, block_size: int) -> tuple[NDArray[np.uint8], FloatArray]:
    """Quantise along the input in blocks.

    Args:
        weight: `[N, K]`, any float type.
        bits: 4 or 8.
        block_size: Weights sharing a scale; K is padded with zeros to a multiple of it.

    Returns:
        Packed `[N, ceil(K / block), block * bits / 8]` uint8, two 4-bit values a byte, the first in the low
        half; and scales `[N, ceil(K / block)]` float32. A stored value q stands for (q - 2^(bits-1)) * scale.

    Source: ONNX Runtime, contrib operator MatMulNBits.
    """
    assert bits in (4, 8)
    rows, columns = weight.shape
    blocks = -(-columns // block_size)
    packed = np.empty((rows, blocks, block_size * bits // 8), np.uint8)
    scales = np.empty((rows, blocks), np.float32)
    for first in range(0, rows, ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        values = np.pad(np.asarray(weight[part], np.float32), ((0, 0), (0, blocks * block_size - columns)))
        values = values.reshape(-1, blocks, block_size)
        scales[part] = _block_scales(values, bits)
        packed[part] = _pack(_steps(values, scales[part], bits), bits)
    return packed, scales


def _block_scales(values: FloatArray, bits: int) -> FloatArray:
    """Scale of each block `[n, blocks]`: the value of largest size falls on the most negative step.

    There is one step more below zero than above, so the largest value decides the sign of the scale.
    """
    place = np.abs(values).argmax(axis=-1)[..., None]
    largest = np.take_along_axis(values, place, axis=-1)[..., 0]
    return np.asarray(largest / -(2.0 ** (bits - 1)), np.float32)


def _steps(values: FloatArray, scales: FloatArray, bits: int) -> NDArray[np.uint8]:
    """Nearest step of every value, 0 to 2^bits - 1, shape kept."""
    middle = 2 ** (bits - 1)
    safe = np.where(scales == 0, np.float32(1), scales)[..., None]
    steps = np.rint(values / safe) + middle
    return np.asarray(np.clip(steps, 0, 2**bits - 1), np.uint8)


def _pack(steps: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    return steps if bits == 8 else np.asarray(steps[..., 0::2] | (steps[..., 1::2] << 4), np.uint8)


def dequantise_blocks(packed: NDArray[np.uint8], scales: FloatArray, bits: int, columns: int) -> FloatArray:
    """What a packed weight stands for, `[N, K]` float32; the inverse of `quantise_blocks` up to rounding.

    Args:
        packed: `[N, blocks, block * bits / 8]`.
        scales: `[N, blocks]`.
        bits: 4 or 8.
        columns: K, without the padding.
    """
    steps = (
        packed if bits == 8 else np.stack((packed & 15, packed >> 4), axis=-1).reshape(*packed.shape[:2], -1)
    )
    values = (steps.astype(np.float32) - 2 ** (bits - 1)) * scales[..., None]
    return np.asarray(values.reshape(len(packed), -1)[:, :columns], np.float32)


def quantise_channels(weight: FloatArray) -> tuple[NDArray[np.int8], FloatArray]:
    """Quantise each output channel to int8, -127 to 127.

    Args:
        weight: `[N, K]` float32.

    Returns:
        `[N, K]` int8 and scales `[N]` float32.
    """
    scales = np.maximum(np.abs(weight).max(axis=1), np.float32(1e-30)) / np.float32(127)
    quantised = np.empty(weight.shape, np.int8)
    for first in range(0, len(weight), ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        quantised[part] = np.rint(weight[part] / scales[part, None]).astype(np.int8)
    return quantised, scales.astype(np.float32)
