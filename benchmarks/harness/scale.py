"""How large everything is: the released model and the prompts of the table, or a small one for trying."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cached_property

from make_random_checkpoint import model_config
from random_tokenizer import ordinary_tokens

from phi4.checkpoint import expected_shapes
from phi4.configs import Phi4Config


@dataclass(frozen=True)
class Scale:
    """Sizes of models and prompts, and how often each thing is measured.

    Attributes:
        name: "full" or "quick"; also the size that `make_random_checkpoint.py` writes.
        prompt: Tokens of a prompt.
        long_prompt: Tokens of the long one.
        steps: Tokens of an answer.
        rows: Sequences that decode together.
        first_prompt: Tokens of the first prompt after loading.
        context: Tokens that are held when memory is measured.
        turns: Samples of a cell.
        long_turns: Samples with the long prompt.
        media_turns: Samples with a picture.
        starts: Times a program is started to time its start.
        recording_s: Length of the recording.
    """

    name: str
    prompt: int
    long_prompt: int
    steps: int
    rows: int
    first_prompt: int
    context: int
    turns: int
    long_turns: int
    media_turns: int
    starts: int
    recording_s: float

    @cached_property
    def mini(self) -> Phi4Config:
        """The text model."""
        return model_config("mini", self.name)

    @cached_property
    def multimodal(self) -> Phi4Config:
        """The model with encoders."""
        return model_config("multimodal", self.name)

    def parameters(self, kind: str) -> int:
        """Weights of "mini" or "multimodal"."""
        config = self.mini if kind == "mini" else self.multimodal
        return sum(math.prod(shape) for shape in expected_shapes(config).values())

    def token_ids(self, count: int, turn: int) -> list[int]:
        """Random ordinary tokens: others in every turn, the same for everybody within one."""
        most = ordinary_tokens(self.mini.decoder.vocab_size)
        return random.Random(f"{count} tokens, turn {turn}").choices(range(most), k=count)


FULL = Scale(
    name="full",
    prompt=512,
    long_prompt=2048,
    steps=64,
    rows=8,
    first_prompt=32,
    context=4096,
    turns=5,
    long_turns=1,
    media_turns=3,
    starts=3,
    recording_s=10.0,
)
QUICK = Scale(
    name="quick",
    prompt=64,
    long_prompt=256,
    steps=8,
    rows=4,
    first_prompt=32,
    context=512,
    turns=2,
    long_turns=1,
    media_turns=1,
    starts=1,
    recording_s=2.0,
)
SCALES = {"full": FULL, "quick": QUICK}
