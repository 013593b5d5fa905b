"""What is held out, decided by hash: no list of test sentences exists anywhere.

Every piece of content has a key (a sentence, a pair of operands, a picture's text). Its split is a
function of the key alone, so a generator for "train" can never produce content of "test", whatever
the seed. `draw` is the loop that keeps drawing until the content belongs to the split asked for.
Fonts, voices and dialects are held out by name, in `fonts.py` and `voices.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from phi4.data.records import Split

T = TypeVar("T")
EXAMPLES_PERCENT = 2
TEST_PERCENT = 6
MAX_TRIES = 3000


def split_of(kind: str, key: str) -> Split:
    """Returns the split that a piece of content belongs to: 2% examples, 6% test, the rest train.

    Args:
        kind: Family of keys, so that the same words may fall differently as speech and as picture.
        key: The content in canonical form.
    """
    digest = hashlib.blake2b(f"{kind}\0{key}".encode(), digest_size=8).digest()
    percent = int.from_bytes(digest, "little") % 10000 / 100
    if percent < EXAMPLES_PERCENT:
        return "examples"
    return "test" if percent < EXAMPLES_PERCENT + TEST_PERCENT else "train"


def draw(
    rng: np.random.Generator,
    split: Split,
    kind: str,
    make: Callable[[np.random.Generator], T],
    key: Callable[[T], str] = str,
) -> T:
    """Draws content until it belongs to `split`.

    Args:
        rng: Random stream; advanced by as many draws as it takes.
        split: Where the content must belong.
        kind: Family of keys (see `split_of`).
        make: Draws one piece of content.
        key: Its canonical form.
    """
    for _ in range(MAX_TRIES):
        content = make(rng)
        if split_of(kind, key(content)) == split:
            return content
    raise AssertionError(f"no {kind} of split {split} in {MAX_TRIES} tries: its pool is too small")


def pick(rng: np.random.Generator, items: tuple[T, ...]) -> T:
    """Returns one of `items`, each equally likely."""
    return items[int(rng.integers(len(items)))]
