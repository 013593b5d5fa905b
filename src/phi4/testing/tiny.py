"""A tiny model with fixed weights: every part of the released architecture, 0.3 million parameters.

`write_tiny_checkpoint(dir, layout)` writes a complete model folder (config, weights, tokenizer) in any
of the three layouts; the same call always writes the same numbers. Answers are babble, but reproducible
babble that depends on every picture, recording, adapter and position.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from phi4.checkpoint import expected_shapes, optional_shapes, save_checkpoint
from phi4.configs import AdapterConfig, Layout, Phi4Config, VisionConfig, tiny_multimodal
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.processing.tokenizer_build import build_tokenizer
from phi4.shapes import FloatArray

TINY_TEXTS = (
    "turn on the light in the kitchen and turn off the light in the hall",
    "the red house stands on the hill, the blue house stands by the river",
    "what does the sign say? it says open from nine to five",
    "12 + 7 = 19 and 30 - 4 = 26",
) * 4
"""Training text of the tiny tokenizer; repeated, so that pairs occur often enough to merge."""


def write_tiny_tokenizer(
    directory: str | Path, layout: Layout = "original", vocab_size: int = 320
) -> Phi4Tokenizer:
    """Write `tokenizer.json` with all bytes, the released control tokens and a few merges."""
    return build_tokenizer(TINY_TEXTS, vocab_size, directory, hf_names=layout == "hf")


def tiny_config(
    layout: Layout = "original",
    *,
    vocab_size: int = 320,
    original_max: int = 4096,
    max_positions: int = 131072,
) -> Phi4Config:
    """Sizes of the tiny model.

    Args:
        layout: Released layout; "mini" has the text decoder only.
        vocab_size: Rows of the embedding.
        original_max: Tokens up to which the short LongRoPE factors act; 16 tests a crossing cheaply.
        max_positions: Context in tokens.
    """
    base = tiny_multimodal(original_max, max_positions)
    config = replace(
        base,
        layout=layout,
        decoder=replace(base.decoder, vocab_size=vocab_size),
        vision=VisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            crop_size=56,
            patch_size=14,
            max_crops=4,
        ),
        adapters=(AdapterConfig("vision", 4, 8), AdapterConfig("speech", 5, 10)),
        bos_token_id=None,
        eos_token_ids=(),
        pad_token_id=None,
    )
    return config.with_layout(layout)


def tiny_tensors(config: Phi4Config, seed: int = 0) -> Iterator[tuple[str, FloatArray]]:
    """Canonical names and float32 values; each tensor depends on its own name and `seed` only.

    Matrices keep the size of what they multiply, norms are near one and adapters near the size of the base
    weights, so that nothing is without effect and a wrong order, mask or factor shows in the logits.
    """
    for name, shape in _all_shapes(config).items():
        random = np.random.default_rng([seed, *name.encode()])
        values = random.standard_normal(shape).astype(np.float32)
        if "norm" in name and name.endswith("weight"):
            yield name, 1.0 + np.float32(0.1) * values
        elif name.endswith(("embed_tokens.weight", "lm_head.weight")):
            yield name, np.float32(0.3) * values
        elif len(shape) < 2 or "position_embedding" in name:
            yield name, np.float32(0.1) * values
        else:
            yield name, values * np.float32(1.0 / math.sqrt(math.prod(shape[1:])))


def _all_shapes(config: Phi4Config) -> dict[str, tuple[int, ...]]:
    """Also the tensors that released checkpoints store unused (the tower's last layer and head)."""
    shapes = expected_shapes(config) | optional_shapes(config)
    if config.decoder.tie_word_embeddings:
        del shapes["decoder.lm_head.weight"]
    return shapes


def write_tiny_checkpoint(
    directory: str | Path,
    layout: Layout = "original",
    *,
    original_max: int = 4096,
    max_positions: int = 131072,
    seed: int = 0,
) -> Phi4Config:
    """Write a whole model folder; see `tiny_config` for the sizes.

    Returns:
        The config that was written.
    """
    target = Path(directory)
    tokenizer = write_tiny_tokenizer(target, layout)
    config = tiny_config(layout, original_max=original_max, max_positions=max_positions)
    end = (tokenizer.tokens.endoftext, tokenizer.tokens.end)
    config = replace(config, bos_token_id=end[0], eos_token_ids=end, pad_token_id=end[0])
    save_checkpoint(target, config, tiny_tensors(config, seed), layout)
    return config
