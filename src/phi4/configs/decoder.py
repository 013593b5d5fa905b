"""Sizes of the text decoder, the same class for the mini and the multimodal model.

Field names are the released ones. What the released models never use (biases, other activations,
a sliding window inside the context) is not a field: the reader refuses such configs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from phi4.configs.fields import MAX_LAYERS, MAX_POSITIONS, divides, factors, flag, number, refuse, whole

DECODER_TARGETS = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
"""The four matrices of a layer, in forward order; also what the released adapters act on."""


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of the decoder; `D` = hidden_size, `N` / `K` = query / key-value heads, `F` = intermediate_size.

    Attributes:
        vocab_size: Rows of the embedding; may exceed the tokenizer's ids (padding rows).
        hidden_size: Width D of the residual stream.
        intermediate_size: Inner width F of the gated MLP.
        num_hidden_layers: Number of blocks.
        num_attention_heads: Query heads N; divides `hidden_size`.
        num_key_value_heads: Key/value heads K; divides N.
        rms_norm_eps: Added to the mean square, in float32.
        rope_theta: Base of the rotary frequencies.
        partial_rotary_factor: Share of the head dimension that rotates; 0.75 in the released models.
        max_position_embeddings: Longest context in tokens.
        original_max_position_embeddings: Last length that uses `short_factor`; one more uses `long_factor`.
        short_factor: One divisor per rotary frequency, short regime.
        long_factor: The same for the long regime.
        tie_word_embeddings: True = the output matrix is the embedding and is not stored.
        sliding_window: None, or a window at least as long as the context (then without effect).
        hidden_act: Always "silu".

    Raises:
        InvalidConfig: A value cannot work; the message names field, value and what is valid.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    rms_norm_eps: float
    rope_theta: float
    partial_rotary_factor: float
    max_position_embeddings: int
    original_max_position_embeddings: int
    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    tie_word_embeddings: bool = True
    sliding_window: int | None = None
    hidden_act: str = "silu"

    def __post_init__(self) -> None:
        for field in ("vocab_size", "hidden_size", "intermediate_size"):
            whole(field, getattr(self, field))
        whole("num_hidden_layers", self.num_hidden_layers, high=MAX_LAYERS)
        whole("num_attention_heads", self.num_attention_heads)
        divides("num_attention_heads", self.num_attention_heads, "hidden_size", self.hidden_size)
        whole("num_key_value_heads", self.num_key_value_heads)
        divides(
            "num_key_value_heads", self.num_key_value_heads, "num_attention_heads", self.num_attention_heads
        )
        number("rms_norm_eps", self.rms_norm_eps, 1e-12, 1.0)
        flag("tie_word_embeddings", self.tie_word_embeddings)
        if self.hidden_act != "silu":
            refuse("hidden_act", self.hidden_act, "'silu'")
        self._check_positions()
        self._check_rotary()

    def _check_positions(self) -> None:
        whole("max_position_embeddings", self.max_position_embeddings, high=MAX_POSITIONS)
        # ln(original) divides in the attention factor, so 1 cannot work.
        whole("original_max_position_embeddings", self.original_max_position_embeddings, 2, MAX_POSITIONS)
        if self.sliding_window is not None:
            whole("sliding_window", self.sliding_window, high=MAX_POSITIONS)
            if self.sliding_window < self.max_position_embeddings:
                refuse(
                    "sliding_window",
                    self.sliding_window,
                    f"null or at least max_position_embeddings = {self.max_position_embeddings} "
                    "(attention inside a window is not part of these models)",
                )

    def _check_rotary(self) -> None:
        number("rope_theta", self.rope_theta, 1.0, 1e12)
        number("partial_rotary_factor", self.partial_rotary_factor, 0.0, 1.0)
        if self.rotary_dim < 2 or self.rotary_dim % 2:
            refuse(
                "partial_rotary_factor",
                self.partial_rotary_factor,
                f"such that head_dim {self.head_dim} times it is even and at least 2, not {self.rotary_dim}",
            )
        for field in ("short_factor", "long_factor"):
            object.__setattr__(self, field, factors(field, getattr(self, field), self.num_frequencies))

    @property
    def head_dim(self) -> int:
        """Width H of one head, `hidden_size / num_attention_heads`."""
        return self.hidden_size // self.num_attention_heads

    @property
    def rotary_dim(self) -> int:
        """Leading dimensions of a head that rotate; the others pass through."""
        return int(self.head_dim * self.partial_rotary_factor)

    @property
    def num_frequencies(self) -> int:
        """Rotary frequencies, half of `rotary_dim`."""
        return self.rotary_dim // 2

    @property
    def kv_dim(self) -> int:
        """Width of all key heads together (the same for values)."""
        return self.num_key_value_heads * self.head_dim

    @property
    def qkv_dim(self) -> int:
        """Rows of the fused projection: queries, then keys, then values."""
        return self.hidden_size + 2 * self.kv_dim

    @property
    def attention_factor(self) -> float:
        """Factor on cos AND sin, in both regimes; 1.1902380714 for the released models.

        Source: transformers, `_compute_longrope_parameters`: sqrt(1 + ln(max / original) / ln(original)).
        """
        ratio = self.max_position_embeddings / self.original_max_position_embeddings
        if ratio <= 1.0:
            return 1.0
        return math.sqrt(1.0 + math.log(ratio) / math.log(self.original_max_position_embeddings))

    def target_dims(self, target: str) -> tuple[int, int]:
        """(input, output) width of one of `DECODER_TARGETS`; the weight is `[output, input]`."""
        return {
            "self_attn.qkv_proj": (self.hidden_size, self.qkv_dim),
            "self_attn.o_proj": (self.hidden_size, self.hidden_size),
            "mlp.gate_up_proj": (self.hidden_size, 2 * self.intermediate_size),
            "mlp.down_proj": (self.intermediate_size, self.hidden_size),
        }[target]
