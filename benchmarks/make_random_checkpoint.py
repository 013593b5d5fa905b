#!/usr/bin/env python3
"""Write a model of released size with random weights, as the released files are laid out.

    python benchmarks/make_random_checkpoint.py mini scratch/mini               # 7.7 GB, a minute or two
    python benchmarks/make_random_checkpoint.py multimodal scratch/multimodal   # 12 GB, HF-native
    python benchmarks/make_random_checkpoint.py mini scratch/rough --massive 4  # with massive activations
    python benchmarks/make_random_checkpoint.py mini scratch/tiny --size quick  # megabytes

Weights are bfloat16, independent and normally distributed, of a size that keeps activations near one and
gives next tokens an entropy of about 2.5 nats. Each depends on seed and tensor name alone, so the same
command writes the same bytes. Tensors are made as they are written: the largest one (1.2 GB) is all that is
in memory. A folder appears complete or not at all (`save_checkpoint`), and a complete one is left as it is.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import ml_dtypes
import numpy as np
from random_tokenizer import control_ids, write_tokenizer

from phi4.checkpoint import expected_shapes, optional_shapes, save_checkpoint
from phi4.configs import PHI4_MINI, PHI4_MULTIMODAL, Phi4Config
from phi4.configs.presets import NANO
from phi4.errors import Phi4Error

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
EMBEDDING_STD = 0.02
FINAL_GAIN = 4.0
"""Weight of the last norm. Logits then have a deviation of 4.4 at the released width (0.02 * 4 * sqrt(3072)),
and the entropy of their softmax is ln V - 4.4**2 / 2 = 2.5 nats, as text has; with 1.0 it would be noise."""
ADAPTER_SHARE = 0.1
"""Size of an adapter's delta beside the matrix it stands at."""
MASSIVE_GAIN, MASSIVE_DAMPING = 100.0, 20.0
_STEPS = 1 << 16
_BLOCK_WEIGHTS = 1 << 22
_INTO_RESIDUAL = tuple(
    f"{layer}.weight" for layer in ("o_proj", "down_proj", "out_proj", "fc2", "linear_out", "net.2")
)


@dataclass(frozen=True)
class Rule:
    """How a tensor is filled.

    Attributes:
        mean: Value of a constant tensor.
        std: Deviation of a random one; 0 = constant.
        channels: Rows of a matrix, or elements of a vector, that are multiplied by `gain`.
        gain: See `channels`.
    """

    mean: float = 0.0
    std: float = 0.0
    channels: tuple[int, ...] = ()
    gain: float = 1.0


class Drawn:
    """A tensor that exists when it is looked at, and only then; what a writer of files asks of an array.

    Args:
        name: Ours; with `seed` it decides the values.
        shape: Its dimensions.
        rule: How it is filled.
        seed: Another one gives another model.
    """

    dtype = BFLOAT16

    def __init__(self, name: str, shape: tuple[int, ...], rule: Rule, seed: int) -> None:
        self.name, self.shape, self.rule, self.seed = name, shape, rule, seed

    @property
    def nbytes(self) -> int:
        """Bytes it will take."""
        return math.prod(self.shape) * int(self.dtype.itemsize)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Make it."""
        rule = self.rule
        values = np.full(self.shape, rule.mean, BFLOAT16) if not rule.std else self._normal()
        if rule.channels:
            rows = list(rule.channels)
            values[rows] = (values[rows].astype(np.float32) * rule.gain).astype(BFLOAT16)
        return values if dtype is None else values.astype(dtype)

    def _normal(self) -> np.ndarray:
        """Each weight is one of 65,536 equally likely values of the distribution: 16 random bits suffice.

        Raw bits of the generator are used, since numpy may change what it makes of them between versions.
        """
        count = math.prod(self.shape)
        table = (_quantiles() * self.rule.std).astype(BFLOAT16).view(np.uint16)
        source = np.random.SFC64([self.seed, *self.name.encode()])
        bits = np.empty(count, np.uint16)
        for start in range(0, count, _BLOCK_WEIGHTS):
            size = min(_BLOCK_WEIGHTS, count - start)
            picks = source.random_raw(-(-size // 4)).view(np.uint16)[:size]
            bits[start : start + size] = table[picks]
        return np.asarray(bits.view(BFLOAT16).reshape(self.shape))


@cache
def _quantiles() -> np.ndarray:
    """Centres of 65,536 equally likely pieces of the standard normal distribution, within 4.2."""
    normal = statistics.NormalDist()
    return np.array([normal.inv_cdf((step + 0.5) / _STEPS) for step in range(_STEPS)])


def model_config(kind: str, size: str) -> Phi4Config:
    """The model: "mini" or "multimodal", of "full" or "quick" size.

    Multimodal is HF-native, the layout that transformers reads without code of the checkpoint's own.
    """
    if size == "full":
        return PHI4_MINI if kind == "mini" else PHI4_MULTIMODAL.with_layout("hf")
    assert NANO.vision is not None and NANO.speech is not None
    decoder = replace(
        NANO.decoder,
        vocab_size=2048,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,  # wide heads: a peer runs rotary halves of a multiple of 8 only
        num_key_value_heads=2,
        short_factor=2 * NANO.decoder.short_factor,
        long_factor=tuple(factor for factor in NANO.decoder.long_factor for _ in range(2)),
    )
    end = control_ids(decoder.vocab_size)[0]
    small = replace(
        NANO,
        decoder=decoder,
        vision=replace(NANO.vision, num_hidden_layers=3),
        speech=replace(NANO.speech, num_blocks=2),
        bos_token_id=end,
        eos_token_ids=(end,),
        pad_token_id=end,
    )
    return small.with_layout("mini" if kind == "mini" else "hf")


def tensors(config: Phi4Config, seed: int, massive: int) -> Iterator[tuple[str, Drawn]]:
    """All tensors of a released checkpoint, those that nothing computes with included.

    Args:
        config: The model.
        seed: See `Drawn`.
        massive: Channels of the hidden state that the second layer writes `MASSIVE_GAIN` times too strongly;
            norms behind it weigh them down by `MASSIVE_DAMPING`, so that what matrices see is a few times
            larger there than elsewhere.
    """
    shapes = expected_shapes(config) | optional_shapes(config)
    if config.decoder.tie_word_embeddings:
        shapes.pop("decoder.lm_head.weight", None)
    channels = massive_channels(config.decoder.hidden_size, massive)
    for name, shape in shapes.items():
        rule = rule_for(name, shape, config.decoder.num_hidden_layers)
        yield name, Drawn(name, shape, with_massive(rule, name, channels), seed)


def rule_for(name: str, shape: tuple[int, ...], layers: int) -> Rule:
    """Matrices keep the size of what they multiply; those that add to a residual share one variance."""
    if name == "decoder.norm.weight":
        return Rule(mean=FINAL_GAIN)
    if name.endswith("global_invstd") or ("norm" in name and name.endswith("weight")):
        return Rule(mean=1.0)
    if len(shape) < 2 or "embed_tokens" in name or "position_embedding" in name or "bias_values" in name:
        return Rule(std=EMBEDDING_STD)
    std = 1.0 / math.sqrt(math.prod(shape[1:]))
    if ".lora_B." in name:
        std *= ADAPTER_SHARE
    elif name.endswith(_INTO_RESIDUAL):
        std /= math.sqrt(2 * layers)
    return Rule(std=std)


def massive_channels(width: int, count: int) -> tuple[int, ...]:
    """`count` channels of a hidden state, evenly apart."""
    return tuple(width * (2 * number + 1) // (2 * count) for number in range(count))


def with_massive(rule: Rule, name: str, channels: tuple[int, ...]) -> Rule:
    """The rule of a tensor in a model with massive channels."""
    if not channels:
        return rule
    if name == "decoder.layers.1.mlp.down_proj.weight":
        return replace(rule, channels=channels, gain=MASSIVE_GAIN)
    behind = name == "decoder.norm.weight" or (
        name.startswith("decoder.layers.") and "norm" in name and int(name.split(".")[2]) > 1
    )
    return replace(rule, channels=channels, gain=1 / MASSIVE_DAMPING) if behind else rule


def write_checkpoint(folder: Path, config: Phi4Config, seed: int = 0, massive: int = 0) -> None:
    """Write tokenizer, weights and, last, `config.json`.

    Raises:
        Phi4Error: As `save_checkpoint`.
    """
    write_tokenizer(folder, config.decoder.vocab_size, hf_names=config.layout == "hf")
    arrays = cast("Iterator[tuple[str, np.ndarray]]", tensors(config, seed, massive))  # alike to a writer
    save_checkpoint(folder, config, arrays, config.layout)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=("mini", "multimodal"))
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--size", choices=("full", "quick"), default="full", help="default: full")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--massive", type=int, default=0, metavar="N", help="channels with massive activations (default: 0)"
    )
    return parser


def main() -> int:
    """Write the model."""
    parser = arguments()
    args = parser.parse_args()
    config = model_config(args.kind, args.size)
    if not 0 <= args.massive <= config.decoder.hidden_size // 2:
        parser.error(f"--massive {args.massive}: give 0 to {config.decoder.hidden_size // 2}")
    if (args.out / "config.json").is_file():
        print(f"{args.out}: complete already, left as it is")
        return 0
    started = time.perf_counter()
    try:
        write_checkpoint(args.out, config, args.seed, args.massive)
    except Phi4Error as error:
        parser.error(str(error))
    nbytes = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    print(f"{args.out}: {nbytes / 1e9:.2f} GB in {time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
