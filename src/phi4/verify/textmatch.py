"""How near one text is to another: edit distance, character and word error counts.

Rates are sums of errors over sums of reference lengths, so functions return counts and leave the
division and the intervals to the evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

_NOT_WORD = re.compile(r"[^\w\s']|_")
_SPACES = re.compile(r"\s+")


def normalise(text: str) -> str:
    """Returns text in lower case, punctuation to spaces, runs of white space to one space."""
    return _SPACES.sub(" ", _NOT_WORD.sub(" ", text.lower())).strip()


def edit_distance(first: Sequence[object], second: Sequence[object]) -> int:
    """Returns the fewest insertions, deletions and substitutions that turn one into the other.

    Works on strings (characters) and on lists (words). Source: Wagner and Fischer 1974; the row is
    computed at once, since min-accumulating (value - column) resolves the chain of insertions.
    """
    if not first or not second:
        return max(len(first), len(second))
    codes: dict[object, int] = {}
    left = np.array([codes.setdefault(item, len(codes)) for item in first])
    right = np.array([codes.setdefault(item, len(codes)) for item in second])
    columns = np.arange(len(right) + 1)
    row = columns.copy()
    for number, code in enumerate(left, start=1):
        best = np.empty_like(row)
        best[0] = number
        best[1:] = np.minimum(row[1:] + 1, row[:-1] + (right != code))
        row = np.minimum.accumulate(best - columns) + columns
    return int(row[-1])


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Returns (errors, words of the reference) after `normalise`."""
    want, have = normalise(reference).split(), normalise(hypothesis).split()
    return edit_distance(want, have), len(want)


def character_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Returns (errors, characters of the reference); case and punctuation count, outer space does not."""
    want, have = _SPACES.sub(" ", reference).strip(), _SPACES.sub(" ", hypothesis).strip()
    return edit_distance(want, have), len(want)
