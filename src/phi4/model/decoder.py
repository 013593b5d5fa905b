"""The text decoder shared by Phi-4-mini and Phi-4-multimodal, as plain as it is.

`Decoder.embed` turns ids into vectors, `forward` runs the layers and the last norm, `logits` scores the
vocabulary. Attention is left to the caller's `attend` (see `attention.Attend`), which owns cache and
mask; adapters replace linear layers from outside (`lora.py`). Nothing here knows of training, sharding,
quantisation or media. Module names equal those of the released checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from phi4.configs import DecoderConfig
from phi4.model.attention import Attend
from phi4.model.rotary import Angles, rotate


class RMSNorm(nn.Module):
    """x / rms(x) in fp32, cast back, then times the weight: bf16 parity needs this order."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        """`[..., D]` to `[..., D]`."""
        return functional.rms_norm(hidden, self.weight.shape, None, self.eps) * self.weight


class SelfAttention(nn.Module):
    """Grouped-query attention with one fused input projection: rows of Q, then K, then V."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.num_heads = config.num_attention_heads
        self.num_kv_heads = config.num_key_value_heads
        num_rows = (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
        self.qkv_proj = nn.Linear(config.hidden_size, num_rows, bias=False)
        self.o_proj = nn.Linear(self.num_heads * self.head_dim, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor, angles: Angles, attend: Attend, layer_index: int) -> Tensor:
        """`[B, T, D]` to `[B, T, D]`."""
        batch, length, _ = hidden.shape
        heads = self.qkv_proj(hidden).view(batch, length, -1, self.head_dim)  # [B, T, N + 2K, H]
        sizes = (self.num_heads, self.num_kv_heads, self.num_kv_heads)
        query, key, value = heads.transpose(1, 2).split_with_sizes(sizes, dim=1)
        mixed = attend(layer_index, rotate(query, angles), rotate(key, angles), value)  # [B, N, T, H]
        output: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))
        return output


class MLP(nn.Module):
    """SwiGLU with one fused input projection: rows of the gate, then rows of the value."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[B, T, D]` to `[B, T, D]`."""
        gate, value = self.gate_up_proj(hidden).chunk(2, dim=-1)  # [B, T, F] each
        output: Tensor = self.down_proj(value * functional.silu(gate))
        return output


class DecoderLayer(nn.Module):
    """Attention, then MLP, each on a normed copy and added back."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = SelfAttention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, hidden: Tensor, angles: Angles, attend: Attend, layer_index: int) -> Tensor:
        """`[B, T, D]` to `[B, T, D]`."""
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), angles, attend, layer_index)
        output: Tensor = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return output


class Decoder(nn.Module):
    """Token ids to hidden states to logits.

    Args:
        config: Sizes. With `tie_word_embeddings` the vocabulary is scored with the embedding table and
            no `lm_head` exists.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tied = config.tie_word_embeddings

    def embed(self, token_ids: Tensor) -> Tensor:
        """`[B, T]` ids to `[B, T, D]`; no scaling."""
        embedded: Tensor = self.embed_tokens(token_ids)
        return embedded

    def forward(self, hidden: Tensor, angles: Angles, attend: Attend) -> Tensor:
        """Run every layer and the final norm.

        Args:
            hidden: `[B, T, D]` embedded tokens, media features already in place.
            angles: cos and sin of the positions, from `Rotary`.
            attend: The caller's attention, called once per layer in order.

        Returns:
            `[B, T, D]`, ready for `logits`.
        """
        for layer_index, layer in enumerate(self.layers):
            hidden = layer(hidden, angles, attend, layer_index)
        output: Tensor = self.norm(hidden)
        return output

    def logits(self, hidden: Tensor) -> Tensor:
        """`[..., D]` to `[..., V]`; pass only the positions you need."""
        weight = self.embed_tokens.weight if self.tied else self.lm_head.weight
        return functional.linear(hidden, weight)
