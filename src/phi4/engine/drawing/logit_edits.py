"""What a request adds to its logits: the caller's bias, and penalties for tokens that were said already.

    edits = LogitEdits(params, prompt_ids, vocab_size)
    Draw(..., bias=edits.bias(), scale=edits.scale())
    edits.push(token)                     # the answer grew

The engine turns all of it into two sparse vectors a step, so a runner knows no penalty by name.
Presence and frequency count the answer alone, repetition also the text of the prompt, as elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

from phi4.engine.runner import Bias, Scale
from phi4.errors import InvalidRequest
from phi4.types import SamplingParams

MAX_BIASED_TOKENS = 1024
MAX_BIAS = 100.0


class LogitEdits:
    """Bias and scale of one request's draws.

    Args:
        params: The caller's; all but `logit_bias` checked by `sampler.pack`.
        prompt_ids: Tokens of the prompt, without positions of media.
        vocab_size: V.

    Raises:
        InvalidRequest: `logit_bias` is no mapping of token ids to numbers within their limits.
    """

    def __init__(self, params: SamplingParams, prompt_ids: Iterable[int], vocab_size: int) -> None:
        self._given = checked_bias(params.logit_bias, vocab_size)
        self._presence = float(params.presence_penalty)
        self._frequency = float(params.frequency_penalty)
        self._repetition = float(params.repetition_penalty)
        self._counts: dict[int, int] = {}
        self._seen = set(prompt_ids) if self._repetition != 1.0 else set()

    @property
    def follows_draws(self) -> bool:
        """Whether each drawn token changes the next edit: such a request cannot have drafts."""
        return bool(self._presence or self._frequency) or self._repetition != 1.0

    def push(self, token_id: int) -> None:
        """The answer grew by a token."""
        if self._presence or self._frequency:
            self._counts[token_id] = self._counts.get(token_id, 0) + 1
        if self._repetition != 1.0:
            self._seen.add(token_id)

    def bias(self) -> Bias | None:
        """What to add before the next draw."""
        values = dict(self._given)
        for token, count in self._counts.items():
            values[token] = values.get(token, 0.0) - self._presence - self._frequency * count
        if not values:
            return None
        return Bias(np.fromiter(values, np.int64), np.fromiter(values.values(), np.float32))

    def scale(self) -> Scale | None:
        """What to divide by before the next draw."""
        if not self._seen:
            return None
        ids = np.fromiter(self._seen, np.int64)
        return Scale(ids, np.full(len(ids), self._repetition, np.float32))


def checked_bias(given: Any, vocab_size: int) -> dict[int, float]:
    """A caller's bias with plain numbers.

    Raises:
        InvalidRequest: Too many tokens, an id outside the vocabulary, or a number outside its range.
    """
    if not isinstance(given, Mapping):
        raise InvalidRequest(f"logit_bias is {_shown(given)}; give a mapping of token ids to numbers")
    if len(given) > MAX_BIASED_TOKENS:
        raise InvalidRequest(f"logit_bias names {len(given)} tokens; give at most {MAX_BIASED_TOKENS}")
    checked: dict[int, float] = {}
    for token, value in given.items():
        if isinstance(token, bool) or not isinstance(token, Integral) or not 0 <= int(token) < vocab_size:
            raise InvalidRequest(
                f"logit_bias names the token {_shown(token)}; give ids from 0 to {vocab_size - 1}"
            )
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not (number and math.isfinite(value) and abs(value) <= MAX_BIAS):
            raise InvalidRequest(
                f"logit_bias of token {token} is {_shown(value)}; give a number from -100 to 100"
            )
        checked[int(token)] = float(value)
    return checked


def _shown(value: object) -> str:
    """A stranger's value in an error: short."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
