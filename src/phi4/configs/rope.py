"""LongRoPE: the frequencies of both regimes, and which of the two a sequence uses.

Keys are cached after rotation, so the regime is part of every cache's identity: under the policy
"reference" a sequence that grows past `original_max_position_embeddings` changes from short to
long factors and its cache must be rebuilt. Numpy only; runners turn the arrays into their own. The
factor on cos and sin is the same in both regimes: `DecoderConfig.attention_factor`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from phi4.configs.decoder import DecoderConfig
from phi4.errors import InvalidRequest
from phi4.shapes import FloatArray

Regime = Literal["short", "long"]
RopePolicy = Literal["reference", "pin", "short"]
ROPE_POLICIES: tuple[RopePolicy, ...] = ("reference", "pin", "short")


def inverse_frequencies(config: DecoderConfig, regime: Regime) -> FloatArray:
    """Angle per position of each rotary frequency, `[rotary_dim / 2]` float32.

    Source: Ding et al., "LongRoPE", 2024: 1 / (factor_i * theta^(2i / rotary_dim)); every step in float32 as
    the reference, transformers, does.
    """
    factors = np.asarray(config.short_factor if regime == "short" else config.long_factor, dtype=np.float32)
    steps = np.arange(0, config.rotary_dim, 2, dtype=np.float32)
    exponents = (steps / np.float32(config.rotary_dim)).astype(np.float32)
    # The power is taken in float64 and rounded: numpy's float32 power errs by a bit here and there.
    powers = np.power(np.float64(config.rope_theta), exponents.astype(np.float64)).astype(np.float32)
    return np.asarray(np.float32(1.0) / (factors * powers), dtype=np.float32)


def regime_for(config: DecoderConfig, num_tokens: int, policy: RopePolicy = "reference") -> Regime:
    """Which factor list a sequence uses now.

    Args:
        config: The decoder.
        num_tokens: Length that decides, media positions included: for "reference" what the sequence holds
            at this call, the new token included; for "pin" the prompt plus the longest answer.
        policy: "reference" = by the current length; "pin" = chosen once; "short" = never changes.

    Raises:
        InvalidRequest: Unknown policy.

    Source: transformers, `longrope_frequency_update`: long above `original_max_position_embeddings` tokens.
    """
    if policy not in ROPE_POLICIES:
        raise InvalidRequest(f"rope_policy = {policy!r}: must be one of {list(ROPE_POLICIES)}")
    if policy == "short":
        return "short"
    return "long" if num_tokens > config.original_max_position_embeddings else "short"
