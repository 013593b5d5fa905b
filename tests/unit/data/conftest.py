"""Readers of what generators write, made without them: spoken numbers, questions about numbers, tables."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest

SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
ROUND = "twenty thirty forty fifty sixty seventy eighty ninety"
VALUES = {word: n for n, word in enumerate(SMALL.split())}
VALUES |= {word: 10 * n for n, word in enumerate(ROUND.split(), 2)}

ASKED: tuple[tuple[str, Callable[..., int]], ...] = (
    (r"(?:what is|how much is) (.+) plus (.+)", lambda a, b: a + b),
    (r"add (.+) and (.+)", lambda a, b: a + b),
    (r"(?:what is|how much is) (.+) minus (.+)", lambda a, b: a - b),
    (r"what number comes after (.+)", lambda a: a + 1),
    (r"write the number (.+)", lambda a: a),
)


@dataclass(frozen=True)
class Table:
    """A chart in words: its columns, and the (question, answer) pairs below it."""

    labels: tuple[str, ...]
    values: tuple[int, ...]
    colours: tuple[str, ...]
    asked: tuple[tuple[str, str], ...]


def said_number(words: str) -> int:
    """The number that words name: "three hundred and forty two" is 342."""
    total = 0
    for word in words.split():
        if word == "hundred":
            total *= 100
        elif word != "and":
            total += VALUES[word]
    return total


def asked_numbers(question: str) -> tuple[tuple[int, ...], int]:
    """The numbers a question of `speech_qa` names, as said, and the right answer."""
    for form, right in ASKED:
        if match := re.fullmatch(form, question):
            numbers = tuple(said_number(words) for words in match.groups())
            return numbers, right(*numbers)
    raise AssertionError(f"no known question: {question!r}")


def table_in(document: str) -> Table:
    """A document of the kind "table": a line for each bar, then questions and answers in turn."""
    lines = document.splitlines()
    bars = [line.split() for line in lines if re.fullmatch(r"[a-z]+ \d+ [a-z]+", line)]
    labels, values, colours = zip(*bars, strict=True)
    rest = lines[len(bars) :]
    asked = tuple(zip(rest[::2], rest[1::2], strict=True))
    return Table(labels, tuple(int(value) for value in values), colours, asked)


@pytest.fixture(scope="session")
def number_of() -> Callable[[str], int]:
    return said_number


@pytest.fixture(scope="session")
def read_question() -> Callable[[str], tuple[tuple[int, ...], int]]:
    return asked_numbers


@pytest.fixture(scope="session")
def read_table() -> Callable[[str], Table]:
    return table_in
