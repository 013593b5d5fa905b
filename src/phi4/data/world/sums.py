"""Sums and differences of numbers up to three digits, worked out digit by digit.

The format is `phi4.verify.sums`; a checker there reads every line. A pair of operands (in either order,
for either operator) belongs to one split, so no sum of the test set can have been learnt by heart.
"""

from __future__ import annotations

import numpy as np

from phi4.data.records import Record, Split, assistant, stream, user
from phi4.data.splits import draw, pick
from phi4.verify.sums import Operator, worked_lines

QUESTIONS: dict[Operator, tuple[str, ...]] = {
    "+": (
        "What is {a} + {b}?",
        "{a} + {b}",
        "Work out {a} + {b}.",
        "Add {a} and {b}.",
        "How much is {a} plus {b}?",
        "{a} + {b} =",
        "Please calculate {a} + {b}.",
    ),
    "-": (
        "What is {a} - {b}?",
        "{a} - {b}",
        "Work out {a} - {b}.",
        "Subtract {b} from {a}.",
        "How much is {a} minus {b}?",
        "{a} - {b} =",
        "Please calculate {a} - {b}.",
    ),
}
"""The last question of each operator is held out of training."""


def sums(split: Split, seed: int, index: int, difficulty: float = 1.0) -> Record:
    """A sum or a difference with its worked solution.

    Args:
        split: Which pairs of operands may be used.
        seed: Seed of the whole data set.
        index: Position in it.
        difficulty: Below 0.5 numbers of up to two digits, from there on up to three.
    """
    rng = stream("sums", split, seed, index)
    digits = 2 if difficulty < 0.5 else 3
    first, second = draw(rng, split, "sum", lambda r: (_operand(r, digits), _operand(r, digits)), pair_key)
    operator: Operator = "+" if rng.random() < 0.5 else "-"
    if operator == "-" and second > first and rng.random() < 0.8:
        first, second = second, first
    forms = QUESTIONS[operator][:-1] if split == "train" else QUESTIONS[operator]
    question = pick(rng, forms).format(a=first, b=second)
    worked = "\n".join(worked_lines(first, operator, second))
    facts = {"first": first, "operator": operator, "second": second}
    total = first + second if operator == "+" else first - second
    return Record(
        "sums", split, index, (user(question),), assistant(worked), (worked, str(total)), metadata=facts
    )


def pair_key(pair: tuple[int, int]) -> str:
    """Canonical form of two operands: smaller first."""
    return f"{min(pair)} {max(pair)}"


def _operand(rng: np.random.Generator, digits: int) -> int:
    """A number whose length is drawn first (short ones are rare otherwise), three digits most often."""
    length = min(digits, int(rng.choice([1, 2, 3], p=[0.12, 0.28, 0.6])))
    return int(rng.integers(0 if length == 1 else 10 ** (length - 1), 10**length))
