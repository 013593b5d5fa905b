"""A stand-in for a model that writes under a grammar, token by token, as an engine lets it.

    writer = Writer(tokenizer, vocab_size=352)
    writer.babble(grammar, seed=0)      # random text of the grammar's form; None = not whole in time
    writer.can_say(grammar, "off")      # whether this is an answer the grammar allows

Its likings are noise: whatever form an answer has, the grammar gave it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from phi4.engine.drawing.sampler import draw
from phi4.engine.runner import PackedSampling
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.shapes import BoolArray

_CLOSERS = frozenset(b'"}],:')


class Guide(Protocol):
    """What is asked of a grammar."""

    @property
    def finished(self) -> bool: ...

    def allowed(self) -> BoolArray | None: ...

    def accept(self, token_id: int) -> None: ...


class Writer:
    """Draws with logits that know nothing of the grammar.

    Args:
        tokenizer: Names the tokens.
        vocab_size: Entries V of a logit row, at least the tokenizer's ids.
    """

    def __init__(self, tokenizer: Phi4Tokenizer, vocab_size: int) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = vocab_size
        ends = [tokenizer.token_bytes(token)[-1:] for token in range(vocab_size)]
        self._lean = np.array([bool(end) and end[0] in _CLOSERS for end in ends], np.float32) * 3
        self._lean[list(tokenizer.tokens.stop_ids)] = 3

    def babble(self, grammar: Guide, seed: int, most: int = 400) -> str | None:
        """Random text that leans towards closing what is open; None = not whole after `most` tokens."""
        random = np.random.default_rng(seed)
        ids: list[int] = []
        for position in range(most):
            if grammar.finished:
                return self._text(ids)
            logits = random.normal(0.0, 1.0, self.vocab_size).astype(np.float32) + self._lean
            token = draw(logits, PackedSampling(1.0, seed=seed), position, grammar.allowed())
            if token in self.tokenizer.tokens.stop_ids:
                return self._text(ids)
            grammar.accept(token)
            ids.append(token)
        return None

    def say(self, grammar: Guide, ids: Sequence[int]) -> list[bool]:
        """Feed `ids` as far as they are allowed; returns for each one reached whether it was."""
        found: list[bool] = []
        for token in ids:
            mask = grammar.allowed()
            found.append(mask is None or bool(mask[token]))
            if not found[-1]:
                break
            grammar.accept(token)
        return found

    def can_say(self, grammar: Guide, text: str) -> bool:
        """Whether the whole answer may be `text`, written as the tokenizer cuts it."""
        if not all(self.say(grammar, self.tokenizer.encode_text(text))):
            return False
        mask = grammar.allowed()
        return mask is None or bool(mask[self.tokenizer.tokens.end])

    def _text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special=False)
