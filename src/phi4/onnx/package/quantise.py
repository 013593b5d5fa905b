"""Round-to-nearest quantisation of weights, in numpy, a few rows at a time.

Two forms: blocks of 4 or 8 bits along the input (`MatMulNBits`), and int8 per output channel
(`MatMulIntegerToFloat`). Both are symmetric: the zero point is the middle, so no zero points are stored.
Scales of blocks may be chosen otherwise (`phi4.onnx.calibrate.search`), and so may the steps (`gptq`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from phi4.shapes import AnyArray, FloatArray

VALUES_AT_ONCE = 1 << 19
"""Weights quantised together. Their float32 copies stay in the processor's cache, which is 2.6 times as fast
as 4,096 rows at a time, and a 200,064-row table needs no copy of its own size."""
LARGEST = 127
"""Largest step of int8 weights, and of the sum of two neighbours."""
Blocks = tuple[NDArray[np.uint8], FloatArray]
"""Packed values and scales, see `quantise_blocks`."""
ChooseScales = Callable[[FloatArray, int], FloatArray]
"""Values `[n, blocks, block]` and bits to scales `[n, blocks]`."""
Quantise = Callable[[str, AnyArray, int, int], Blocks]
"""Name of a weight, the weight `[N, K]`, bits and block size to its blocks."""


def largest_scales(values: FloatArray, bits: int) -> FloatArray:
    """Scale of each block `[n, blocks]`: the value of largest size falls on the most negative step.

    There is one step more below zero than above, so the largest value decides the sign of the scale.
    """
    place = np.abs(values).argmax(axis=-1)[..., None]
    largest = np.take_along_axis(values, place, axis=-1)[..., 0]
    return np.asarray(largest / -(2.0 ** (bits - 1)), np.float32)


def quantise_blocks(
    weight: AnyArray, bits: int, block_size: int, choose: ChooseScales = largest_scales
) -> Blocks:
    """Quantise along the input in blocks, each value to its nearest step.

    Args:
        weight: `[N, K]`, any float type.
        bits: 4 or 8.
        block_size: Weights sharing a scale; K is padded with zeros to a multiple of it.
        choose: Makes the scales.

    Returns:
        Packed `[N, ceil(K / block), block * bits / 8]` uint8, two 4-bit values a byte, the first in the low
        half; and scales `[N, ceil(K / block)]` float32. A stored value q stands for (q - 2^(bits-1)) * scale.
        A scale that is not finite: so is a weight of its block.

    Source: ONNX Runtime, contrib operator MatMulNBits.
    """
    assert bits in (4, 8)
    rows, columns = weight.shape
    blocks = -(-columns // block_size)
    packed = np.empty((rows, blocks, block_size * bits // 8), np.uint8)
    scales = np.empty((rows, blocks), np.float32)
    for part in row_slices(rows, columns):
        values = np.pad(np.asarray(weight[part], np.float32), ((0, 0), (0, blocks * block_size - columns)))
        values = values.reshape(-1, blocks, block_size)
        scales[part] = choose(values, bits)
        packed[part] = pack_steps(nearest_steps(values, scales[part], bits), bits)
    return packed, scales


def round_to_nearest(name: str, weight: AnyArray, bits: int, block_size: int) -> Blocks:
    """`quantise_blocks` as it is, whatever the weight's name."""
    return quantise_blocks(weight, bits, block_size)


def nearest_steps(values: FloatArray, scales: FloatArray, bits: int) -> NDArray[np.uint8]:
    """Nearest step of every value `[n, blocks, block]`, 0 to 2^bits - 1, shape kept."""
    middle = 2 ** (bits - 1)
    safe = np.where(scales == 0, np.float32(1), scales)[..., None]
    with np.errstate(invalid="ignore"):  # of weights that are not finite: their scales tell
        steps = np.rint(values / safe) + middle
        return np.asarray(np.clip(steps, 0, 2**bits - 1), np.uint8)


def pack_steps(steps: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Steps `[..., block]` as they are stored, `[..., block * bits / 8]`."""
    return steps if bits == 8 else np.asarray(steps[..., 0::2] | (steps[..., 1::2] << 4), np.uint8)


def dequantise_blocks(packed: NDArray[np.uint8], scales: FloatArray, bits: int, columns: int) -> FloatArray:
    """What a packed weight stands for, `[N, K]` float32 and contiguous.

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
    return np.ascontiguousarray(values.reshape(len(packed), -1)[:, :columns], np.float32)


def quantise_channels(weight: AnyArray) -> tuple[NDArray[np.int8], FloatArray]:
    """Quantise each output channel to int8.

    Processors with AVX2 but without VNNI multiply two neighbouring activations (uint8) and weights (int8)
    into one 16-bit sum, which saturates: 255 * 127 * 2 is twice what it can hold. So the scale of a channel
    is such that the steps of no two neighbours sum up to more than 128, and a package is right on every
    processor. On normally distributed weights a step grows by 1.35; halving the range would double it.

    Args:
        weight: `[N, K]`, any float type.

    Returns:
        `[N, K]` int8 and scales `[N]` float32; one that is not finite: so is a weight of its channel.

    Source: Intel, instruction VPMADDUBSW; ONNX Runtime packs weights in fours along K from an even place on.
    """
    quantised = np.empty(weight.shape, np.int8)
    scales = np.empty(len(weight), np.float32)
    for part in row_slices(*weight.shape):
        values = np.asarray(weight[part], np.float32)
        scales[part] = np.maximum(_largest_sum(values), np.float32(1e-30)) / np.float32(LARGEST)
        with np.errstate(invalid="ignore"):  # of weights that are not finite: their scales tell
            quantised[part] = np.rint(values / scales[part, None]).astype(np.int8)
    return quantised, scales


def _largest_sum(values: FloatArray) -> FloatArray:
    """Largest size of a value or of the sum of a pair of neighbours `[n]`, of rows `[n, K]`.

    A pair of opposite signs sums up to less than one of its values, as its products do.
    """
    even = values[:, : values.shape[1] // 2 * 2]
    pairs = np.abs(even[:, 0::2] + even[:, 1::2]).max(axis=1, initial=0)
    return np.asarray(np.maximum(np.abs(values).max(axis=1), pairs), np.float32)


def row_slices(rows: int, columns: int) -> Iterator[slice]:
    """Consecutive slices of the rows of a matrix, each of about `VALUES_AT_ONCE` values."""
    step = max(1, VALUES_AT_ONCE // max(1, columns))
    for first in range(0, rows, step):
        yield slice(first, first + step)
