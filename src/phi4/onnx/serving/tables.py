"""The rotary tables of the decoder's graph: cos and sin of both LongRoPE regimes, one above the other.

The graph takes any table and looks rows up by position, so rows of both regimes share a pass: those of
the long regime say their position plus the height of the short half. Tables grow with the longest
sequence, by doubling, since those of the whole context would take 100 MB in the released model.
"""

from __future__ import annotations

import numpy as np

from phi4.configs.decoder import DecoderConfig
from phi4.configs.rope import Regime, inverse_frequencies
from phi4.onnx.package.rotary_order import padded_half
from phi4.shapes import FloatArray, IntArray

REGIMES: tuple[Regime, ...] = ("short", "long")
"""Order of the halves."""
FIRST_CAPACITY = 512


class RotaryTables:
    """cos and sin, each `[2 * capacity, padded half]` float32, attention factor included.

    Args:
        config: The decoder.
    """

    def __init__(self, config: DecoderConfig) -> None:
        self._config = config
        self.capacity = 0
        self.cos: FloatArray = np.zeros((0, padded_half(config)), np.float32)
        self.sin = self.cos
        self.grow(1)

    def grow(self, tokens: int) -> None:
        """Make the tables reach positions below `tokens`; positions made before are then of the past."""
        if tokens <= self.capacity:
            return
        capacity = max(FIRST_CAPACITY, 1 << (tokens - 1).bit_length())
        # No sequence is longer than the context, so a table is not either.
        self.capacity = max(tokens, min(capacity, self._config.max_position_embeddings))
        self.cos, self.sin = _tables(self._config, self.capacity)

    def positions(self, start: int, count: int, regime: Regime) -> IntArray:
        """`[count]` rows of the tables for the positions from `start` on."""
        first = start + REGIMES.index(regime) * self.capacity
        return np.arange(first, first + count, dtype=np.int64)


def _tables(config: DecoderConfig, capacity: int) -> tuple[FloatArray, FloatArray]:
    """Source: `phi4.model.rotary`: angles are float32 products; the factor is on cos and sin alike.

    Numbers that only fill the width up turn by nothing: cos 1 and sin 0, without the factor.
    """
    width, real = padded_half(config), config.num_frequencies
    cos = np.ones((2 * capacity, width), np.float32)
    sin = np.zeros((2 * capacity, width), np.float32)
    positions = np.arange(capacity, dtype=np.float32)[:, None]
    for half, regime in enumerate(REGIMES):
        rows = slice(half * capacity, (half + 1) * capacity)
        angles = positions * inverse_frequencies(config, regime)  # float32, as the reference rounds them
        # Their cosines are taken in float64: numpy's float32 ones differ between processors.
        cos[rows, :real] = np.cos(angles, dtype=np.float64) * config.attention_factor
        sin[rows, :real] = np.sin(angles, dtype=np.float64) * config.attention_factor
    return cos, sin
