"""A second reading of the file: llama.cpp's "phi3" graph in numpy, from nothing but the GGUF.

Written from the order of operations in llama.cpp's source, in float64, so that a wrong key, name, order of
rows or factor shows as another probability, here where llama.cpp itself is not at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from phi4.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from phi4.configs import Regime
from phi4.engine.request import text_piece
from phi4.engine.runner import Row, Score, SequenceSpec, StepPlan
from phi4.gguf import write_gguf
from phi4.registry import open_runner
from phi4.testing.tiny import tiny_config, tiny_tensors, write_tiny_checkpoint, write_tiny_tokenizer

Array = NDArray[np.float64]


class Phi3:
    """llama.cpp's graph of the architecture "phi3".

    Args:
        file: What `read` gives.
        num_ctx: Allocated context, which decides between the two lists of rope factors.
    """

    def __init__(self, file: Any, num_ctx: int) -> None:
        self.tensors = {name: array.astype(np.float64) for name, array in file.tensors.items()}
        self.keys = {key.removeprefix("phi3."): value for key, value in file.fields.items()}
        self.heads, self.kv_heads = self.keys["attention.head_count"], self.keys["attention.head_count_kv"]
        self.width = self.keys["embedding_length"] // self.heads
        beyond = num_ctx > self.keys["rope.scaling.original_context_length"]
        self.factors = self.tensors[f"rope_factors_{'long' if beyond else 'short'}.weight"]

    def logits(self, ids: Sequence[int]) -> Array:
        hidden = self.tensors["token_embd.weight"][list(ids)]
        for layer in range(self.keys["block_count"]):
            hidden = hidden + self.attention(self.norm(hidden, f"blk.{layer}.attn_norm"), layer)
            hidden = hidden + self.mlp(self.norm(hidden, f"blk.{layer}.ffn_norm"), layer)
        output = self.tensors.get("output.weight", self.tensors["token_embd.weight"])
        return self.norm(hidden, "output_norm") @ output.T

    def norm(self, hidden: Array, name: str) -> Array:
        mean = np.mean(hidden**2, axis=-1, keepdims=True)
        return (
            hidden
            / np.sqrt(mean + self.keys["attention.layer_norm_rms_epsilon"])
            * self.tensors[f"{name}.weight"]
        )

    def attention(self, hidden: Array, layer: int) -> Array:
        fused = hidden @ self.tensors[f"blk.{layer}.attn_qkv.weight"].T
        split = [self.heads * self.width, (self.heads + self.kv_heads) * self.width]
        query, key, value = (
            part.reshape(len(hidden), -1, self.width) for part in np.split(fused, split, axis=1)
        )
        group = self.heads // self.kv_heads
        key, value = np.repeat(self.rope(key), group, axis=1), np.repeat(value, group, axis=1)
        scores = np.einsum("tnh,snh->nts", self.rope(query) / np.sqrt(self.width), key)
        scores = np.where(np.tri(len(hidden), dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = np.einsum("nts,snh->tnh", weights, value).reshape(len(hidden), -1)
        return mixed @ self.tensors[f"blk.{layer}.attn_output.weight"].T

    def rope(self, heads: Array) -> Array:
        """NeoX order: dimension i turns with i + n/2, what lies beyond n passes."""
        n = self.keys["rope.dimension_count"]
        steps = self.keys["rope.freq_base"] ** (-2.0 * np.arange(n // 2) / n)
        angles = np.arange(len(heads))[:, None] * steps / self.factors
        cos, sin = (
            turn(angles)[:, None] * self.keys["rope.scaling.attn_factor"] for turn in (np.cos, np.sin)
        )
        low, high, rest = heads[..., : n // 2], heads[..., n // 2 : n], heads[..., n:]
        return np.concatenate([low * cos - high * sin, low * sin + high * cos, rest], axis=-1)

    def mlp(self, hidden: Array, layer: int) -> Array:
        """The first half of the rows goes through SiLU and weighs the second."""
        gate, up = np.split(hidden @ self.tensors[f"blk.{layer}.ffn_up.weight"].T, 2, axis=1)
        return (gate / (1.0 + np.exp(-gate)) * up) @ self.tensors[f"blk.{layer}.ffn_down.weight"].T


def ours(checkpoint: Checkpoint, ids: Sequence[int], regime: Regime) -> Array:
    """Log-probabilities of `ids[1:]` by the torch runner in float32."""
    runner = open_runner("torch", checkpoint, modalities=("text",), device="cpu", dtype="float32")
    slot = runner.open(SequenceSpec((), regime, len(ids)))
    row = Row(slot, (text_piece(ids[:-1]),), Score(np.asarray(ids[1:], np.int64)))
    return runner.step(StepPlan((row,))).rows[0].logprobs.astype(np.float64)


def theirs(file: Any, ids: Sequence[int], num_ctx: int) -> Array:
    logits = Phi3(file, num_ctx).logits(ids[:-1])
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return logits[np.arange(len(ids) - 1), ids[1:]]


def prompt(vocab_size: int, length: int) -> list[int]:
    return np.random.default_rng(5).integers(0, vocab_size, length).tolist()


def test_nano_s_file_means_what_nano_computes(nano: Checkpoint, tmp_path: Path, read: Any) -> None:
    write_gguf(nano, nano.path, tmp_path / "nano.gguf", "bfloat16")
    ids = prompt(nano.config.decoder.vocab_size, 96)
    difference = theirs(read(tmp_path / "nano.gguf"), ids, 4096) - ours(nano, ids, "short")
    assert np.abs(difference).max() < 1e-4


@pytest.mark.parametrize(("num_ctx", "regime"), [(16, "short"), (17, "long")])
def test_the_allocated_context_picks_the_regime(
    tmp_path: Path, read: Any, num_ctx: int, regime: Regime
) -> None:
    write_tiny_checkpoint(tmp_path, "mini", original_max=16, max_positions=64)
    checkpoint = open_checkpoint(tmp_path)
    write_gguf(checkpoint, tmp_path, tmp_path / "tiny.gguf", "float32")
    file, ids = read(tmp_path / "tiny.gguf"), prompt(320, 16)
    expected = ours(checkpoint, ids, regime)
    assert np.abs(theirs(file, ids, num_ctx) - expected).max() < 1e-4
    other = 17 if num_ctx == 16 else 16
    assert np.abs(theirs(file, ids, other) - expected).max() > 1e-2


def test_an_untied_output_matrix_is_the_one_used(tmp_path: Path, read: Any) -> None:
    config = tiny_config("mini")
    config = replace(config, decoder=replace(config.decoder, tie_word_embeddings=False))
    write_tiny_tokenizer(tmp_path)
    save_checkpoint(tmp_path, config, tiny_tensors(config))
    checkpoint = open_checkpoint(tmp_path)
    write_gguf(checkpoint, tmp_path, tmp_path / "tiny.gguf", "float32")
    ids = prompt(320, 24)
    difference = theirs(read(tmp_path / "tiny.gguf"), ids, 4096) - ours(checkpoint, ids, "short")
    assert np.abs(difference).max() < 1e-4
