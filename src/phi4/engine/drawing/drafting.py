"""Prompt lookup: a guess of what comes next, read off from what followed the last tokens before.

    lookup = PromptLookup(prompt_ids)
    drafts = lookup.guess(most=8)          # () when the last tokens stood nowhere before
    lookup.judged(len(drafts), accepted)   # right guesses make the next ones longer
    lookup.push(token)

Copying is what answers often do: reading a page aloud, correcting a text, writing code again. The runner
draws after every guessed token and keeps the guesses that equal its draws, so answers stay what they were.
"""

from __future__ import annotations

from collections.abc import Iterable

NGRAMS = (4, 2)
"""Lengths of the runs looked up, the longest first: the longer the run, the likelier it goes on alike."""
FIRST_GUESS = 4
MOST_GUESSED = 16
"""Feeding 16 positions costs a small model about three times what one costs; more pays for no text we met."""
REST_TOKENS = 8
"""Tokens drawn without guessing after a guess that was wrong from its first token on."""
UNKNOWN = -1
"""Stands for a position without a token, such as one of a picture; no run holds it."""


class PromptLookup:
    """Where every short run of tokens stood last, and how well guessing goes.

    Args:
        known: Tokens of the prompt, `UNKNOWN` at positions of media.
    """

    def __init__(self, known: Iterable[int]) -> None:
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        self._before: dict[tuple[int, ...], int] = {}
        self._length = FIRST_GUESS
        self._rest = 0
        for token in known:
            self.push(token)

    def push(self, token: int) -> None:
        """The sequence grew by a token."""
        self._tokens.append(token)
        self._rest = max(0, self._rest - 1)
        for size in NGRAMS:
            run = tuple(self._tokens[-size:])
            if len(run) == size and UNKNOWN not in run:
                if run in self._after:
                    self._before[run] = self._after[run]
                self._after[run] = len(self._tokens)

    def guess(self, most: int) -> tuple[int, ...]:
        """Up to `most` tokens that followed the last run before; empty when it is new or guessing rests."""
        if self._rest:
            return ()
        for size in NGRAMS:
            # The latest occurrence is the end of the sequence itself; what is wanted is the one before.
            start = self._before.get(tuple(self._tokens[-size:]))
            if start is not None:
                found = self._tokens[start : start + min(most, self._length)]
                return tuple(found[: found.index(UNKNOWN)] if UNKNOWN in found else found)
        return ()

    def judged(self, guessed: int, right: int) -> None:
        """How many of the guessed tokens were right."""
        if right == guessed:
            self._length = min(MOST_GUESSED, 2 * self._length)
        elif right == 0:
            self._length, self._rest = FIRST_GUESS, REST_TOKENS
        else:
            self._length = max(FIRST_GUESS, right + 1)
