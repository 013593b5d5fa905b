"""The order in which a graph keeps the dimensions of a head, and how far its rotary tables are padded.

GroupQueryAttention turns dimension i of a head together with dimension i + half, and wants half to be a
multiple of 8. Where the model's half is not (nano: 12), the tables are padded with the angle 0 up to the
next multiple, and dimensions that never turn move into the gap. Queries and keys move alike, so every
product of the two stays what it was; values stay where they are. At full size (48) nothing moves.
The build orders the rows of `qkv_proj` with this, the runner those of a user's own adapter.
"""

from __future__ import annotations

import numpy as np

from phi4.configs.decoder import DecoderConfig
from phi4.errors import InvalidConfig
from phi4.shapes import IntArray

HALF_MULTIPLE = 8
"""GroupQueryAttention takes rotary tables whose width is a multiple of this.

Source: ONNX Runtime 1.31, checks of the contrib operator.
"""


def padded_half(config: DecoderConfig) -> int:
    """Width of the cos and sin tables: the number of frequencies, rounded up to a multiple of 8.

    Raises:
        InvalidConfig: The padded halves do not fit into a head.
    """
    half = -(-config.num_frequencies // HALF_MULTIPLE) * HALF_MULTIPLE
    if 2 * half > config.head_dim:
        raise InvalidConfig(
            f"head_dim = {config.head_dim}: an ONNX graph needs at least {2 * half} for the "
            f"{config.num_frequencies} rotary frequencies of this model"
        )
    return half


def head_order(config: DecoderConfig) -> IntArray:
    """`[H]`: which dimension of the model's head stands at each place of the graph's head."""
    half, filler = config.num_frequencies, padded_half(config) - config.num_frequencies
    first, second, passed = np.split(np.arange(config.head_dim), (half, 2 * half))
    parts = (first, passed[:filler], second, passed[filler : 2 * filler], passed[2 * filler :])
    return np.concatenate(parts).astype(np.int64)


def qkv_row_order(config: DecoderConfig) -> IntArray:
    """`[qkv_dim]`: which row of the model's `qkv_proj` stands at each row of the graph's.

    `weight[qkv_row_order(config)]` is the graph's weight. Rows of queries and keys move inside their heads;
    those of values do not.
    """
    turning = config.num_attention_heads + config.num_key_value_heads
    starts = np.arange(turning, dtype=np.int64)[:, None] * config.head_dim
    values = np.arange(turning * config.head_dim, config.qkv_dim, dtype=np.int64)
    return np.concatenate(((starts + head_order(config)).ravel(), values))
