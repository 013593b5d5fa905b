"""Rotation of queries and keys, one regime per row."""

from __future__ import annotations

import math

import torch

from phi4.configs import tiny_multimodal
from phi4.model import Rotary, regime_indices, rotate

CONFIG = tiny_multimodal(16, 64).decoder  # head dimension 32, of which 24 rotate, factor sqrt(1.5)


def angles(
    positions: list[int], *regimes: str, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.tensor([positions] * len(regimes))
    return Rotary(CONFIG)(rows, regime_indices(regimes, "cpu"), dtype)  # type: ignore[arg-type]


def test_pairs_turn_by_position_times_frequency_and_the_rest_passes() -> None:
    head = torch.randn(32, generator=torch.Generator().manual_seed(0))
    turned = rotate(head.view(1, 1, 1, 32), angles([7], "long")).flatten()
    factor = math.sqrt(1.5)
    for pair in range(12):
        angle = 7 / ((pair + 1.0) * 10000.0 ** (2 * pair / 24))
        first, second = head[pair].item(), head[pair + 12].item()
        expected = factor * (first * math.cos(angle) - second * math.sin(angle))
        assert abs(turned[pair].item() - expected) < 1e-5
        expected = factor * (second * math.cos(angle) + first * math.sin(angle))
        assert abs(turned[pair + 12].item() - expected) < 1e-5
    assert torch.equal(turned[24:], head[24:])


def test_scores_depend_on_the_distance_only() -> None:
    query, key = torch.randn(2, 1, 1, 1, 32, generator=torch.Generator().manual_seed(1)).unbind()
    near = (rotate(query, angles([9], "short")) * rotate(key, angles([4], "short"))).sum()
    far = (rotate(query, angles([29], "short")) * rotate(key, angles([24], "short"))).sum()
    assert abs(near.item() - far.item()) < 1e-4


def test_every_row_has_its_own_regime() -> None:
    cos, _ = angles([0, 3, 20], "short", "long", "short")
    assert torch.equal(cos[0], cos[2])
    assert not torch.equal(cos[0], cos[1])
    assert torch.equal(cos[1], angles([0, 3, 20], "long")[0][0])


def test_factor_scales_both_regimes_at_position_zero() -> None:
    cos, sin = angles([0], "short", "long")
    torch.testing.assert_close(cos, torch.full_like(cos, math.sqrt(1.5)))
    assert not sin.any()


def test_angles_are_computed_in_fp32_and_cast_last() -> None:
    low, _ = angles([63], "short", dtype=torch.bfloat16)
    high, _ = angles([63], "short")
    assert torch.equal(low, high.bfloat16())
