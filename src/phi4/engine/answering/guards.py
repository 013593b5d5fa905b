"""A stop rule against loops: an answer that says the same again and again ends with "repetition".

Small models fall into loops, greedy ones never leave them: without a guard an answer then costs all of
its tokens and says nothing. What counts as a loop is in `LoopLimits`; a table's ruler or a few equal
lines are none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phi4.errors import InvalidRequest
from phi4.types import FinishReason

_BUFFER_TOKENS = 512


@dataclass(frozen=True)
class LoopLimits:
    """When an answer counts as looping: it ends with one run of tokens, repeated.

    Attributes:
        max_period_tokens: Longest run that is looked for. 64 tokens hold a long sentence.
        min_repeats: Times the run must stand there, the first included.
        min_tokens: Tokens all repetitions must take together, so that "ha ha ha" is none.

    Raises:
        InvalidRequest: A limit that cannot be.
    """

    max_period_tokens: int = 64
    min_repeats: int = 3
    min_tokens: int = 48

    def __post_init__(self) -> None:
        if self.max_period_tokens < 1 or self.min_repeats < 2 or self.min_tokens < 2:
            raise InvalidRequest(
                f"{self}: give at least 1 token for the period, 2 repeats and 2 tokens in all, "
                "or switch the guard off"
            )


class LoopGuard:
    """Watches one answer, in constant time and memory a token."""

    def __init__(self, limits: LoopLimits) -> None:
        self._longest = limits.max_period_tokens
        periods = np.arange(self._longest, 0, -1)  # [P], as tokens lie in the buffer: the latest last
        self._enough = np.maximum(limits.min_repeats * periods, limits.min_tokens) - periods
        self._alike = np.zeros(self._longest, np.int64)
        """Of each period: how many of the last tokens equal the one that period before them."""
        self._buffer = np.full(self._longest + _BUFFER_TOKENS, -1, np.int64)  # -1 = before the answer
        self._end = self._longest

    def check(self, token_id: int, num_generated: int) -> FinishReason | None:
        """Add a drawn token; "repetition" when the answer loops with it."""
        if self._end == len(self._buffer):
            self._buffer[: self._longest] = self._buffer[-self._longest :]
            self._end = self._longest
        self._alike += 1
        self._alike *= self._buffer[self._end - self._longest : self._end] == token_id
        self._buffer[self._end] = token_id
        self._end += 1
        return "repetition" if bool((self._alike >= self._enough).any()) else None
