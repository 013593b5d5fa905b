"""The conformer blocks of the speech encoder.

Half feed-forward, attention with a relative bias, causal convolution, half feed-forward, final norm.
Attention is bidirectional; "causal" in the released config concerns the depthwise convolution only.
In both gated layers the SECOND half is the gate, the opposite of the decoder.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from phi4.configs import SpeechConfig
from phi4.model.attention import Attention


class GatedLinear(nn.Module):
    """Linear to twice the width; first half times swish of the second."""

    def __init__(self, input_size: int, inner_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(input_size, 2 * inner_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[..., D]` to `[..., F]`."""
        both: Tensor = self.linear(hidden)
        value, gate = both.chunk(2, dim=-1)
        return value * functional.silu(gate)


class FeedForward(nn.Module):
    """Norm, gated linear, linear. Index 1 of `net` is the released dropout, which is 0."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.hidden_size)
        self.net = nn.Sequential(
            GatedLinear(config.hidden_size, config.intermediate_size),
            nn.Identity(),
            nn.Linear(config.intermediate_size, config.hidden_size),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """`[n, T, D]` to `[n, T, D]`."""
        output: Tensor = self.net(self.layer_norm(hidden))
        return output


class SpeechAttention(nn.Module):
    """Multi-head attention; the relative bias is added to the scaled scores."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.linear_q = nn.Linear(config.hidden_size, config.hidden_size)
        self.linear_k = nn.Linear(config.hidden_size, config.hidden_size)
        self.linear_v = nn.Linear(config.hidden_size, config.hidden_size)
        self.linear_out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor, mask: Tensor | None, bias: Tensor, attention: Attention) -> Tensor:
        """`[n, T, D]` to `[n, T, D]`; `mask` `[n, 1, 1, T]`, True = real; `bias` `[1, N, T, T]`."""
        rows, time, _ = hidden.shape
        query, key, value = (
            projection(hidden).view(rows, time, self.num_heads, -1).transpose(1, 2)  # [n, N, T, H]
            for projection in (self.linear_q, self.linear_k, self.linear_v)
        )
        mixed = attention(query, key, value, mask=mask, bias=bias)
        output: Tensor = self.linear_out(mixed.transpose(1, 2).reshape(rows, time, -1))
        return output


class GatedPointwise(nn.Module):
    """Pointwise convolution to twice the width, a bias on each half, first half times swish of the second."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.ext_pw_conv_1d = nn.Conv1d(config.hidden_size, 2 * config.ext_pw_out_channel, kernel_size=1)
        self.b1 = nn.Parameter(torch.zeros(1, config.ext_pw_out_channel, 1))
        self.b2 = nn.Parameter(torch.zeros(1, config.ext_pw_out_channel, 1))

    def forward(self, hidden: Tensor) -> Tensor:
        """`[n, T, D]` to `[n, T, D]`."""
        value, gate = pointwise(hidden, self.ext_pw_conv_1d).chunk(2, dim=-1)
        return (value + self.b1.view(-1)) * functional.silu(gate + self.b2.view(-1))


class DepthwiseSeparable(nn.Module):
    """Causal depthwise convolution over time, then a pointwise one."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        size, kernel = config.hidden_size, config.kernel_size
        self.dw_conv = nn.Conv1d(size, size, kernel, padding=kernel - 1, groups=size)
        self.pw_conv = nn.Conv1d(size, config.depthwise_separable_out_channel, kernel_size=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[n, T, D]` to `[n, T, D]`; the outputs that would look ahead are dropped."""
        mixed = self.dw_conv(hidden.transpose(1, 2))[:, :, : hidden.shape[1]]
        return pointwise(mixed.transpose(1, 2), self.pw_conv)


class ConvModule(nn.Module):
    """Norm, gated pointwise, depthwise separable, swish, pointwise. No batch norm."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.hidden_size)
        self.glu = GatedPointwise(config)
        self.dw_sep_conv_1d = DepthwiseSeparable(config)
        self.ext_pw_conv_1d = nn.Conv1d(config.hidden_size, config.ext_pw_out_channel, kernel_size=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[n, T, D]` to `[n, T, D]`."""
        mixed = self.dw_sep_conv_1d(self.glu(self.layer_norm(hidden)))
        return pointwise(functional.silu(mixed), self.ext_pw_conv_1d)


class ConformerBlock(nn.Module):
    """One block; its output is normed."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.feed_forward_in = FeedForward(config)
        self.self_attn = SpeechAttention(config)
        self.conv = ConvModule(config)
        self.feed_forward_out = FeedForward(config)
        self.layer_norm_att = nn.LayerNorm(config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size)

    def forward(self, hidden: Tensor, mask: Tensor | None, bias: Tensor, attention: Attention) -> Tensor:
        """`[n, T, D]` to `[n, T, D]`."""
        hidden = hidden + 0.5 * self.feed_forward_in(hidden)
        hidden = hidden + self.self_attn(self.layer_norm_att(hidden), mask, bias, attention)
        hidden = hidden + self.conv(hidden)
        output: Tensor = self.layer_norm(hidden + 0.5 * self.feed_forward_out(hidden))
        return output


class RelativeBias(nn.Module):
    """A learned number per head and clipped distance, key minus query; one table for all blocks."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.max_distance = config.bias_max_distance
        self.bias_values = nn.Embedding(2 * config.bias_max_distance, config.num_attention_heads)

    def forward(self, time: int) -> Tensor:
        """`[1, N, time, time]` for queries and keys at 0 .. time - 1."""
        places = torch.arange(time, device=self.bias_values.weight.device)
        distance = (places[None, :] - places[:, None]).clamp(-self.max_distance, self.max_distance - 1)
        values: Tensor = self.bias_values(distance + self.max_distance)  # [T, T, N]
        return values.permute(2, 0, 1)[None]


def pointwise(hidden: Tensor, conv: nn.Conv1d) -> Tensor:
    """A kernel-1 convolution applied with channels last: `[n, T, D]` to `[n, T, D']`, no transposes."""
    return functional.linear(hidden, conv.weight[:, :, 0], conv.bias)
