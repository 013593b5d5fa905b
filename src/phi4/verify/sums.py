"""Checks a worked sum line by line: every digit, every carry or borrow, and the answer.

The format is fixed, so that a small model can learn it and a machine can check it. Digits are written
apart, the shorter number padded with zeros, and worked from the right:

    0 4 7 + 3 8 9
    7 + 9 + 0 = 16 write 6 carry 1
    4 + 8 + 1 = 13 write 3 carry 1
    0 + 3 + 1 = 4 write 4 carry 0
    digits: 4 3 6
    answer: 436

A difference borrows: "2 - 9 - 0 borrow 1 so 12 - 9 - 0 = 3", or "9 - 2 - 1 borrow 0 so 9 - 2 - 1 = 6".
When the second number is larger, the two change places after a first line "7 - 12 is below zero".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Operator = Literal["+", "-"]
_ANSWER = re.compile(r"^answer: (-?\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class SumCheck:
    """The verdict on a worked sum.

    Attributes:
        answer: The number on the answer line, None when there is none.
        answer_ok: It is the right one.
        steps_ok: Every line is the one that follows from the sum, the answer's included.
        first_wrong: First line that differs, as "line 3: got ..., expected ..."; empty when all agree.
    """

    answer: int | None
    answer_ok: bool
    steps_ok: bool
    first_wrong: str = ""


def worked_lines(first: int, operator: Operator, second: int) -> tuple[str, ...]:
    """Returns the lines of a correct solution.

    Args:
        first: 0 or more.
        operator: "+" or "-".
        second: 0 or more.
    """
    head: tuple[str, ...] = ()
    sign = ""
    if operator == "-" and second > first:
        head, sign = (f"{first} - {second} is below zero",), "-"
        first, second = second, first
    width = max(len(str(first)), len(str(second)))
    upper, lower = f"{first:0{width}d}", f"{second:0{width}d}"
    rows = [f"{' '.join(upper)} {operator} {' '.join(lower)}"]
    step = _add if operator == "+" else _subtract
    written, over = "", 0
    for a, b in zip(reversed(upper), reversed(lower), strict=True):
        row, digit, over = step(int(a), int(b), over)
        rows.append(row)
        written = f"{digit}{written}"
    if over:
        written = f"1{written}"
    return (*head, *rows, f"digits: {' '.join(written)}", f"answer: {sign}{int(written)}")


def _add(a: int, b: int, carry: int) -> tuple[str, int, int]:
    total = a + b + carry
    return f"{a} + {b} + {carry} = {total} write {total % 10} carry {total // 10}", total % 10, total // 10


def _subtract(a: int, b: int, borrow: int) -> tuple[str, int, int]:
    need = int(a - b - borrow < 0)
    from_ = a + 10 * need
    digit = from_ - b - borrow
    return f"{a} - {b} - {borrow} borrow {need} so {from_} - {b} - {borrow} = {digit}", digit, need


def final_answer(text: str) -> int | None:
    """Returns the number of the last line "answer: N", or None."""
    found = _ANSWER.findall(text)
    return int(found[-1]) if found else None


def check_sum(expected: str, text: str) -> SumCheck:
    """Checks a worked sum against the right one; there is only one way to write it.

    Args:
        expected: The right solution, the lines of `worked_lines`.
        text: What a model wrote.
    """
    right = final_answer(expected)
    assert right is not None, f"a worked sum must state its answer: {expected!r}"
    answer = final_answer(text)
    wrong = ""
    lines, got = expected.splitlines(), text.strip().splitlines()
    for number in range(max(len(lines), len(got))):
        have = got[number] if number < len(got) else "nothing"
        want = lines[number] if number < len(lines) else "nothing"
        if have != want:
            wrong = f"line {number + 1}: got {have!r}, expected {want!r}"
            break
    return SumCheck(answer, answer == right, not wrong, wrong)
