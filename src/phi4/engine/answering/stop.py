"""Stop rules: when an answer ends, and which text may be shown before that is certain.

Small rules decide on each drawn token: stop ids, the length limit, and whatever else obeys `EndRule`
(grammars, the loop guard). Stop strings may be split over tokens, so text that could be the beginning of
one is held back until it is not.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from phi4.errors import InvalidRequest
from phi4.types import FinishReason


class EndRule(Protocol):
    """Judges the tokens of one answer, each once and in order."""

    def check(self, token_id: int, num_generated: int) -> FinishReason | None:
        """Why the answer ends with `token_id` as its `num_generated`-th token; None = it goes on."""
        ...


def checked_stops(stops: Sequence[str]) -> tuple[str, ...]:
    """Stop strings as a tuple, if they can be that.

    Raises:
        InvalidRequest: Not a tuple or a list (a single string would stop at each of its letters), or one of
            them is not text or empty.
    """
    if not isinstance(stops, list | tuple):
        raise InvalidRequest(f"stop is {stops!r}; give a list of strings, such as ['END']")
    for stop in stops:
        if not isinstance(stop, str) or not stop:
            raise InvalidRequest(f"a stop string is {stop!r}; give text of at least one character")
    return tuple(stops)


@dataclass
class StopStrings:
    """Cuts a growing text before the stop string that is completed first.

    Feed text with `push`; it returns what is safe to show, and nothing once `stopped` is True.

    Attributes:
        stops: The strings; empty = none.
        stopped: True once one of them has appeared.

    Raises:
        InvalidRequest: See `checked_stops`.
    """

    stops: tuple[str, ...]
    stopped: bool = False
    _held: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        self.stops = checked_stops(self.stops)

    def push(self, text: str) -> str:
        """Add `text`; return the part of what is held that no stop string can reach any more."""
        if self.stopped:
            return ""
        self._held += text
        starts = [(self._held.find(stop), len(stop)) for stop in self.stops]
        found = [(start + size, start) for start, size in starts if start >= 0]
        if found:
            self.stopped = True
            _, start = min(found)  # the one completed first, so the split into pieces does not matter
            shown, self._held = self._held[:start], ""
            return shown
        keep = held_back(self._held, self.stops)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def flush(self) -> str:
        """The answer ended for another reason: what was held back is ordinary text."""
        shown, self._held = self._held, ""
        return shown


def held_back(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of `text` that is a proper beginning of one of `stops`."""
    longest = 0
    for stop in stops:
        for size in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:size]):
                longest = size
                break
    return longest


@dataclass(frozen=True)
class StopTokens:
    """Ends an answer at a stop id or at the length limit.

    Attributes:
        stop_ids: Ids that end a turn; read from the tokenizer.
        max_new_tokens: Length limit of the answer, stop id included.
    """

    stop_ids: Collection[int]
    max_new_tokens: int

    def check(self, token_id: int, num_generated: int) -> FinishReason | None:
        """Why the answer ends with `token_id` as its `num_generated`-th token; None = it goes on."""
        if token_id in self.stop_ids:
            return "stop"
        return "length" if num_generated >= self.max_new_tokens else None
