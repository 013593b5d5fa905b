"""Attention kernels, and the plain causal `attend` used for training and for whole-sequence scoring.

A kernel is a function of queries, keys and values with an optional mask and an optional additive
bias; `select_attention` picks one and names it, so that a log line or `phi4 show` can say which one
runs. The decoder never calls a kernel itself: it is handed an `Attend`, an object of the caller that
may keep a key/value cache. `CausalAttend` is the one without a cache.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from phi4.errors import InvalidRequest

ATTENTION_NAMES = ("eager", "sdpa", "flash")


class Attend(Protocol):
    """What the decoder calls once per layer: owns the cache and the mask, returns the mixed values.

    `layer_index` counts from 0. `query` is `[B, N, T, H]`, `key` and `value` are `[B, K, T, H]`, all of
    them after rotation and for the new positions only; the result is `[B, N, T, H]`. Query head `j`
    uses key/value head `j // (N // K)`. The tensors are views with strides; a caller that keeps
    keys must copy them into its own storage.
    """

    def __call__(self, layer_index: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor: ...


class AttentionFunction(Protocol):
    """Softmax attention over given keys.

    `query` `[B, N, T, H]`, `key` and `value` `[B, K, S, H]` with N a multiple of K. `mask`, broadcastable
    to `[B, 1, T, S]`, is boolean, True = this query may look at this key. `bias`, broadcastable to
    `[B, N, T, S]`, is added to the scaled scores. `is_causal` needs T == S and no mask.
    """

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor: ...


@dataclass(frozen=True)
class Attention:
    """A kernel with the name it is logged under."""

    name: str
    function: AttentionFunction

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Mix `value` by attention; see `AttentionFunction` for the shapes."""
        return self.function(query, key, value, mask=mask, bias=bias, is_causal=is_causal)


def eager_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    is_causal: bool = False,
) -> Tensor:
    """Matrix product, fp32 softmax, matrix product; the fastest choice for a few dozen positions on a CPU.

    The queries of one key/value head are stacked along T, so no key is repeated.
    """
    batch, heads, num_queries, head_dim = query.shape
    kv_heads, num_keys = key.shape[1], key.shape[2]
    stacked = query.reshape(batch, kv_heads, -1, head_dim)  # [B, K, G*T, H]
    scores = torch.matmul(stacked, key.transpose(2, 3)) * head_dim**-0.5  # [B, K, G*T, S]
    scores = scores.view(batch, heads, num_queries, num_keys)
    if bias is not None:
        scores = scores + bias
    if is_causal:
        mask = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query.device).tril()
    if mask is not None:
        # The smallest finite number instead of -inf: a query without any key gives no NaN.
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
    mixed = torch.matmul(weights.view(batch, kv_heads, -1, num_keys), value)  # [B, K, G*T, H]
    return mixed.view(batch, heads, num_queries, head_dim)


def sdpa_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    is_causal: bool = False,
) -> Tensor:
    """torch's scaled_dot_product_attention; picks a fused kernel where the inputs allow one."""
    weights_mask = mask
    if bias is not None:
        bias = bias.to(query.dtype)
        weights_mask = bias if mask is None else bias.masked_fill(~mask, float("-inf"))
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and weights_mask is not None and query.is_cuda:
        # Fused CUDA kernels take a mask or grouped heads, not both; repeated keys keep the fused path.
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        groups = 1
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=weights_mask, is_causal=is_causal, enable_gqa=groups > 1
    )


def flash_attention(flash: Any) -> AttentionFunction:
    """A kernel around `flash_attn_func`; masks and biases, which it does not take, go through SDPA."""

    def attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        if mask is not None or bias is not None or query.dtype not in (torch.float16, torch.bfloat16):
            return sdpa_attention(query, key, value, mask=mask, bias=bias, is_causal=is_causal)
        swapped = (tensor.transpose(1, 2) for tensor in (query, key, value))  # [B, T, N, H]
        mixed: Tensor = flash(*swapped, causal=is_causal)
        return mixed.transpose(1, 2)

    return attention


def flash_available(device: torch.device) -> bool:
    """Whether flash-attn is installed and `device` can run it (CUDA, compute capability 8.0 or newer)."""
    if device.type != "cuda" or importlib.util.find_spec("flash_attn") is None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def select_attention(device: torch.device | str, requested: str | None = None) -> Attention:
    """Pick the attention kernel for a device.

    Args:
        device: Where the model runs.
        requested: One of `ATTENTION_NAMES`, or None for flash where it is available and SDPA elsewhere.

    Raises:
        InvalidRequest: An unknown name, or flash asked for where it cannot run.
    """
    device = torch.device(device)
    name = requested or ("flash" if flash_available(device) else "sdpa")
    if name not in ATTENTION_NAMES:
        raise InvalidRequest(f"unknown attention {name!r}: choose one of {', '.join(ATTENTION_NAMES)}")
    if name == "eager":
        return Attention("eager", eager_attention)
    if name == "sdpa":
        return Attention("sdpa", sdpa_attention)
    if not flash_available(device):
        raise InvalidRequest(
            f"attention 'flash' cannot run on {device}: it needs the flash-attn package and an NVIDIA GPU of "
            "compute capability 8.0 or newer; choose 'sdpa' or 'eager'"
        )
    return Attention("flash", flash_attention(importlib.import_module("flash_attn").flash_attn_func))


def causal_mask(segments: Tensor | None) -> Tensor | None:
    """Mask of a whole-sequence forward pass: earlier positions of the same segment.

    Args:
        segments: `[B, T]` integers; tokens of different numbers do not see each other (packed rows). None =
            one sequence a row; padding on the right needs no mask, no real token can see it.

    Returns:
        `[B, 1, T, T]` bool, True = may attend, the diagonal always; None when plain causality is enough.
    """
    if segments is None:
        return None
    length = segments.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()  # [T, T]
    same = segments[:, :, None] == segments[:, None, :]  # [B, T, T]
    return (earlier & same)[:, None]


@dataclass(frozen=True)
class CausalAttend:
    """The `Attend` without a cache: every position sees itself and what came before.

    Attributes:
        attention: The kernel.
        mask: What `causal_mask` returned; None = plain causality.
    """

    attention: Attention
    mask: Tensor | None = None

    def __call__(self, layer_index: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Mix values over the positions of this very call; see `Attend` for the shapes."""
        return self.attention(query, key, value, mask=self.mask, is_causal=self.mask is None)
