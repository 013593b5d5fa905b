"""One answer on its way through a compiled grammar: which tokens may come next, and when it is whole.

A `Constraint` is made by `compiler.GrammarCompiler`, one for each answer. Before a draw the engine asks for
`allowed()`, after it says `accept(token)`; once `finished` is True nothing but the end may follow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from phi4.errors import InvalidRequest
from phi4.shapes import BoolArray

_MAX_REASON_CHARS = 300
_TAKEN_AT_A_TIME = 16
_MOST_CPU_S = 0.1
_NOTHING_FITS = "no text this model can write fits it here"


class Matcher(Protocol):
    """What is used of `llguidance.LLMatcher`. It does not raise: an error is a state it never leaves."""

    def compute_bitmask(self) -> bytes: ...

    def consume_token(self, sampled_token: int, /) -> bool: ...

    def try_consume_tokens(self, tokens: list[int], /) -> int: ...

    def is_accepting(self) -> bool: ...

    def is_stopped(self) -> bool: ...

    def is_error(self) -> bool: ...

    def get_error(self) -> str: ...

    def get_grammar_warnings(self) -> list[str]: ...

    def deep_copy(self) -> Matcher: ...


class Constraint:
    """The state of one answer.

    Args:
        matcher: A fresh copy of the compiled grammar.
        usable: `[V]`, True = a token that may ever be drawn: ordinary text and the ends of an answer. No
            other control token gets through, whatever a grammar says.
        stop_ids: Ids that end an answer; where the grammar allows the end, each of them is allowed.
        what: Name of the grammar in messages.
        on_failure: Called when the grammar fails while the answer is written, for the cache to forget it.
    """

    def __init__(
        self,
        matcher: Matcher,
        usable: BoolArray,
        stop_ids: tuple[int, ...],
        what: str = "the grammar",
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self._matcher = matcher
        self._usable = usable
        self._stop_ids = stop_ids
        self._what = what
        self._on_failure = on_failure
        self._ended = False

    @property
    def finished(self) -> bool:
        """Whether the answer is whole: only its end may follow, or has come."""
        return self._ended or (self._matcher.is_stopped() and not self._matcher.is_error())

    def allowed(self) -> BoolArray:
        """Tokens that may be drawn now, `[V]`; at least one is True. The array is the caller's.

        Raises:
            InvalidRequest: The grammar ran into a limit, or no token this model may say fits it here.
        """
        if self.finished:
            return only(self._stop_ids, len(self._usable))
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        mask = np.unpackbits(bits, count=len(self._usable), bitorder="little").view(np.bool_)
        mask &= self._usable
        mask[list(self._stop_ids)] = mask[self._stop_ids[0]]
        if not mask.any():
            self._fail(_NOTHING_FITS)
        return mask

    def accept(self, token_id: int) -> None:
        """The answer grew by a token that was allowed.

        Raises:
            InvalidRequest: The grammar ran into a limit.
        """
        assert not self._ended, "the answer has ended"
        if token_id in self._stop_ids:
            self._ended = True
            return
        self._matcher.consume_token(token_id)
        self._check()

    def takes(self, token_ids: Sequence[int]) -> bool:
        """Whether these tokens are a whole answer; for a constraint that is not used for anything else.

        Most schemas cost some microseconds a token, hostile ones milliseconds, and other answers wait: what
        takes more than a tenth of a second of processor time is no answer.
        """
        until_s = time.thread_time() + _MOST_CPU_S
        for start in range(0, len(token_ids), _TAKEN_AT_A_TIME):
            some = list(token_ids[start : start + _TAKEN_AT_A_TIME])
            taken = self._matcher.try_consume_tokens(some)
            if self._matcher.is_error():
                self._on_failure()
            if taken < len(some) or time.thread_time() >= until_s:
                return False
        return self._matcher.is_accepting()

    def _check(self) -> None:
        if self._matcher.is_error():
            self._fail(first_reason(self._matcher.get_error()))

    def _fail(self, reason: str) -> None:
        self._on_failure()
        raise InvalidRequest(f"{self._what} cannot be followed: {reason}; correct or simplify it")


def only(token_ids: tuple[int, ...], vocab_size: int) -> BoolArray:
    """`[V]`, True at `token_ids`."""
    mask = np.zeros(vocab_size, np.bool_)
    mask[list(token_ids)] = True
    return mask


def first_reason(message: str) -> str:
    """The compiler's words on one line, without what a panic says about our machine."""
    if message.startswith("panic"):
        return "it is beyond what the grammar compiler can do"
    if "NoExtensionBias" in message:
        return _NOTHING_FITS
    words = " ".join(message.partition("<backtrace>")[0].replace("<non-verbose/>", "").split())
    return words if len(words) <= _MAX_REASON_CHARS else words[: _MAX_REASON_CHARS - 3] + "..."
