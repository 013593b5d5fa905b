"""What is served: a model with its tokenizer, and prompts for it that no cache has seen."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from phi4.checkpoint import resolve_model
from phi4.processing.tokenizer import Phi4Tokenizer

NANO = "nano"
_WORDS = (
    "light", "kitchen", "water", "seven", "bread", "window", "garden", "table", "river", "paper", "winter",
    "green", "story", "number", "music", "letter", "small", "evening", "answer", "morning",
)  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """How much is asked of a model.

    Attributes:
        prompt: Tokens of a prompt.
        answer: Tokens of an answer.
        rounds: Users at a time -> questions each of them asks.
        steady_answer: Tokens of answers whose steady rate is measured.
        rows: Answers that are written together there.
        turns: Samples of each series.
        overload_turns: Samples with requests at a steady rate.
        window_s: For how long requests come at a steady rate.
        deadline_s: Time an answer has to be worth anything there.
        overload: How many times what it can do is asked of it.
    """

    prompt: int
    answer: int
    rounds: Mapping[int, int]
    steady_answer: int
    rows: int = 8
    turns: int = 5
    overload_turns: int = 3
    window_s: float = 30.0
    deadline_s: float = 20.0
    overload: int = 10

    def as_settings(self) -> dict[str, Any]:
        """As a record keeps it."""
        return asdict(self) | {"rounds": {str(users): rounds for users, rounds in self.rounds.items()}}


SMALL = Sizes(prompt=128, answer=128, rounds={1: 32, 4: 16, 8: 12, 16: 8}, steady_answer=512)
LARGE = Sizes(
    prompt=128,
    answer=32,
    rounds={1: 4, 4: 2, 8: 2, 16: 2},
    steady_answer=64,
    turns=3,
    overload_turns=1,
    window_s=120.0,
    deadline_s=90.0,
)


@dataclass(frozen=True)
class Served:
    """A model.

    Attributes:
        name: What reports call it.
        path: "nano" or a folder.
        sizes: How much is asked of it.
    """

    name: str
    path: str
    sizes: Sizes = field(default=SMALL)

    @cached_property
    def tokenizer(self) -> Phi4Tokenizer:
        """Its tokenizer."""
        return Phi4Tokenizer.load(resolve_model(self.path, ("text",)))

    @property
    def ends(self) -> tuple[int, ...]:
        """Tokens that end an answer."""
        return self.tokenizer.tokens.stop_ids

    @cached_property
    def _ordinary(self) -> list[int]:
        return sorted(set(range(self.tokenizer.vocab_size)) - self.tokenizer.control_ids)

    def token_ids(self, seed: str) -> list[int]:
        """A prompt of random ordinary tokens; another for each seed, the same for everybody."""
        return random.Random(seed).choices(self._ordinary, k=self.sizes.prompt)

    def answer_tokens(self, seed: str) -> int:
        """Length of an answer: around the usual one, so that users do not stay in step."""
        usual = self.sizes.answer
        return random.Random(seed).randint(usual // 2, usual + usual // 2)

    def text(self, seed: str) -> str:
        """A prompt of random words, of about as many tokens."""
        chance = random.Random(seed)
        words: list[str] = []
        while len(self.tokenizer.encode_text(" ".join(words))) < self.sizes.prompt:
            words.append(chance.choice(_WORDS))
        return " ".join(words)
