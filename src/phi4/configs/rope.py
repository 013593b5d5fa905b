"""LongRoPE: frequencies, the factor on cos and sin, and which factor list a sequence uses.

Keys are cached after rotation, so the regime is part of every cache's identity: under the policy
"reference" a sequence that grows past `original_max_position_embeddings` changes from short to
long factors and its cache must be rebuilt. Numpy only; runners turn the arrays into their own.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from phi4.configs.decoder import DecoderConfig
from phi4.errors import InvalidRequest
from phi4.shapes import FloatArray, IntArray

Regime = Literal["short", "long"]
RopePolicy = Literal["reference", "pin", "short"]
ROPE_POLICIES: tuple[RopePolicy, ...] = ("reference", "pin", "short")


def attention_factor(config: DecoderConfig) -> float:
    """Factor on cos AND sin in both regimes; 1.1902380714 for the released models."""
    return config.attention_factor


def inverse_frequencies(config: DecoderConfig, regime: Regime) -> FloatArray:
    """Angle per position of each rotary frequency, `[rotary_dim / 2]` float32.

    Source: spec 01, 1 / (factor_i * theta^(2i / rotary_dim)); every step in float32 as the reference does.
    """
    factors = np.asarray(config.short_factor if regime == "short" else config.long_factor, dtype=np.float32)
    steps = np.arange(0, config.rotary_dim, 2, dtype=np.float32)
    exponents = (steps / np.float32(config.rotary_dim)).astype(np.float32)
    # The power is taken in float64 and rounded: numpy's float32 power errs by a bit here and there.
    powers = np.power(np.float64(config.rope_theta), exponents.astype(np.float64)).astype(np.float32)
    return np.asarray(np.float32(1.0) / (factors * powers), dtype=np.float32)


def cos_sin(config: DecoderConfig, positions: IntArray, regime: Regime) -> tuple[FloatArray, FloatArray]:
    """Rotary tables for positions `[..., T]`, each `[..., T, rotary_dim]` float32, attention factor applied.

    The angles are laid out as [frequencies, frequencies], for the half-split rotation of pairs (k, k + n).
    """
    angles = np.asarray(positions, dtype=np.float32)[..., None] * inverse_frequencies(config, regime)
    doubled = np.concatenate([angles, angles], axis=-1)
    factor = np.float32(config.attention_factor)
    return (np.cos(doubled) * factor).astype(np.float32), (np.sin(doubled) * factor).astype(np.float32)


def regime_for(
    config: DecoderConfig, num_tokens: int, policy: RopePolicy = "reference", max_new_tokens: int = 0
) -> Regime:
    """Which factor list a sequence uses now.

    Args:
        config: The decoder.
        num_tokens: Tokens the sequence holds at this call, media positions and the new token included.
        policy: "reference" = by the current length; "pin" = chosen once from prompt plus longest answer
            (pass the prompt's length); "short" = never changes.
        max_new_tokens: Longest answer; only "pin" looks at it.

    Raises:
        InvalidRequest: Unknown policy.

    Source: spec 01, "Short/long decision".
    """
    if policy not in ROPE_POLICIES:
        raise InvalidRequest(f"rope_policy = {policy!r}: must be one of {list(ROPE_POLICIES)}")
    if policy == "short":
        return "short"
    length = num_tokens + (max_new_tokens if policy == "pin" else 0)
    return "long" if length > config.original_max_position_embeddings else "short"
