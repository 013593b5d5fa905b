"""The front of the speech encoder: normalised log-mel frames to one vector per eight frames.

Three strided convolutions look one frame past each edge, so padded frames are zeroed before each of
them: a recording then gives the same vectors in a batch as alone. Long recordings go through in
pieces, with the eight frames before a piece as context, which changes nothing but the peak memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from phi4.configs import SpeechConfig

PIECE_FRAMES = 8_000
"""Frames of a long recording that are subsampled at once (80 s; 330 MB of bf16 activations at full size)."""


class MeanVarianceNorm(nn.Module):
    """(x - mean) * invstd with statistics stored in the checkpoint."""

    global_mean: Tensor
    global_invstd: Tensor

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.register_buffer("global_mean", torch.zeros(input_size))
        self.register_buffer("global_invstd", torch.ones(input_size))

    def forward(self, features: Tensor) -> Tensor:
        """`[..., M]` to `[..., M]`."""
        return (features - self.global_mean) * self.global_invstd


class Subsampling(nn.Module):
    """A convolution over time and mel, then depthwise-pointwise pairs, each halving both; a linear layer."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.factor = config.time_reduction
        channels, mels = config.nemo_conv_channels, config.input_size
        layers: list[nn.Module] = [nn.Conv2d(1, channels, kernel_size=3, stride=2, padding=1), nn.ReLU()]
        for _ in range(self.factor.bit_length() - 2):
            layers += [
                nn.Conv2d(channels, channels, kernel_size=3, stride=2, padding=1, groups=channels),
                nn.Conv2d(channels, channels, kernel_size=1),
                nn.ReLU(),
            ]
        self.conv = nn.Sequential(*layers)
        self.out = nn.Linear(channels * -(-mels // self.factor), config.hidden_size)

    def forward(self, features: Tensor, num_frames: Sequence[int]) -> Tensor:
        """Subsample a batch.

        Args:
            features: `[n, A, M]` normalised log-mel.
            num_frames: Real frames of each row; what stands behind them is ignored.

        Returns:
            `[n, ceil(A / 8), D]`; positions behind a row's ceil(num_frames / 8) are zero.
        """
        pieces = []
        for start in range(0, features.shape[1], PIECE_FRAMES):
            context = self.factor if start else 0
            piece = features[:, start - context : start + PIECE_FRAMES]
            lengths = [min(max(count - start + context, 0), piece.shape[1]) for count in num_frames]
            pieces.append(self._piece(piece, lengths)[:, context // self.factor :])
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)

    def _piece(self, features: Tensor, lengths: list[int]) -> Tensor:
        first, *rest = (layer for layer in self.conv if isinstance(layer, nn.Conv2d))
        patches = _patches(_zero_padding(features, lengths))  # [n, T, f, 9]
        hidden = functional.relu(functional.linear(patches, first.weight.flatten(1), first.bias))
        for depthwise, pointwise in zip(rest[::2], rest[1::2], strict=True):
            lengths = [(length + 1) // 2 for length in lengths]
            hidden = _depthwise(_zero_padding(hidden, lengths), depthwise)  # [n, T, f, C]
            hidden = functional.relu(functional.linear(hidden, pointwise.weight.flatten(1), pointwise.bias))
        lengths = [(length + 1) // 2 for length in lengths]
        # The released linear layer takes channel-major vectors; ours are mel-major, so its columns move.
        channels, mels = hidden.shape[3], hidden.shape[2]
        weight = self.out.weight.view(-1, channels, mels).transpose(1, 2).flatten(1)
        return _zero_padding(functional.linear(hidden.flatten(2), weight, self.out.bias), lengths)


def _patches(features: Tensor) -> Tensor:
    """The 3x3 surroundings of every second frame and mel: `[n, T, M]` to `[n, T / 2, M / 2, 9]`.

    With them the first convolution is a matrix product, whose channels come last without a transpose.
    """
    return functional.pad(features, (1, 1, 1, 1)).unfold(1, 3, 2).unfold(2, 3, 2).flatten(3)


def _depthwise(hidden: Tensor, conv: nn.Conv2d) -> Tensor:
    """A depthwise convolution with channels last; on a CPU in fp32, where the bf16 kernel is much slower."""
    swapped = hidden.permute(0, 3, 1, 2)  # [n, C, T, f]
    if hidden.device.type != "cpu":
        mixed: Tensor = conv(swapped)
    else:
        with torch.autocast("cpu", enabled=False):
            weight, bias = conv.weight.float(), cast(Tensor, conv.bias).float()
            mixed = functional.conv2d(swapped.float(), weight, bias, stride=2, padding=1, groups=len(weight))
    return mixed.to(hidden.dtype).permute(0, 2, 3, 1)


def _zero_padding(hidden: Tensor, lengths: Sequence[int]) -> Tensor:
    """Zero what stands behind each row's length along dimension 1; the tensor itself when nothing does."""
    time = hidden.shape[1]
    if all(length >= time for length in lengths):
        return hidden
    mask = padding_mask(lengths, time, hidden.device)
    return hidden * mask.view(len(lengths), time, *(1 for _ in hidden.shape[2:]))


def padding_mask(lengths: Sequence[int], time: int, device: torch.device) -> Tensor:
    """`[n, time]` bool, True = before the row's length."""
    return torch.arange(time, device=device)[None] < torch.tensor(lengths, device=device)[:, None]
