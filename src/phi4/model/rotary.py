"""Rotary positions with LongRoPE: cos and sin tables per row, and the rotation of queries and keys.

Each row of a batch has its own regime ("short" or "long" factors), so that a row gives the same numbers
in any company. Frequencies come from `phi4.configs.rope`, the attention factor from the config; which
regime a row takes is decided by the caller, never here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from phi4.configs import DecoderConfig
from phi4.configs.rope import Regime, inverse_frequencies

REGIMES: tuple[Regime, ...] = ("short", "long")

Angles = tuple[Tensor, Tensor]
"""cos and sin, each `[B, T, rotary_dim / 2]`, attention factor included, in the activation dtype."""


class Rotary:
    """Makes the cos and sin of given positions.

    Not a module on purpose: the frequencies must stay fp32 when the model is cast to bf16.
    """

    def __init__(self, config: DecoderConfig) -> None:
        stacked = np.stack([inverse_frequencies(config, regime) for regime in REGIMES])
        self._frequencies = torch.tensor(stacked, dtype=torch.float32, device="cpu")  # [2, rotary_dim / 2]
        self._on_device: dict[torch.device, Tensor] = {}
        self.attention_factor = config.attention_factor

    def frequencies(self, device: torch.device) -> Tensor:
        """`[2, rotary_dim / 2]` fp32 inverse frequencies on `device`, short first; copied there once."""
        if device not in self._on_device:
            self._on_device[device] = self._frequencies.to(device)
        return self._on_device[device]

    def __call__(self, positions: Tensor, regimes: Tensor, dtype: torch.dtype) -> Angles:
        """cos and sin for a batch.

        Args:
            positions: `[B, T]` integers, 0 for the first token of a sequence.
            regimes: `[B]` integers on the same device, index into `REGIMES`; see `regime_indices`.
            dtype: Activation dtype; angles are computed in fp32 and cast last.

        Source: transformers, `Phi3RotaryEmbedding`: the factor multiplies cos and sin under both regimes.
        """
        frequencies = self.frequencies(positions.device)[regimes]  # [B, F]
        angles = positions[..., None].float() * frequencies[:, None, :]  # [B, T, F]
        cos, sin = angles.cos() * self.attention_factor, angles.sin() * self.attention_factor
        return cos.to(dtype), sin.to(dtype)


def regime_indices(regimes: Sequence[Regime], device: torch.device | str) -> Tensor:
    """`[B]` int64 for `Rotary`, from the names of the rows' regimes."""
    return torch.tensor([REGIMES.index(regime) for regime in regimes], dtype=torch.int64, device=device)


def rotate(heads: Tensor, angles: Angles) -> Tensor:
    """Rotate the first `rotary_dim` numbers of every head, half against half; the rest pass through.

    Args:
        heads: `[B, N, T, H]` queries or keys.
        angles: From `Rotary`; number k turns together with number k + rotary_dim / 2.
    """
    cos, sin = (part[:, None] for part in angles)  # [B, 1, T, F]
    half = cos.shape[-1]
    first, second, rest = heads[..., :half], heads[..., half : 2 * half], heads[..., 2 * half :]
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    # Under autocast the angles are fp32 and the heads are not; keys and values must stay of one type.
    return torch.cat((turned.to(heads.dtype), rest), dim=-1)
