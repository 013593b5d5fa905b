"""The checker of worked sums accepts what is right and finds the first wrong line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi4.verify.sums import check_sum, final_answer, worked_lines

NUMBERS = st.integers(0, 999)


@given(NUMBERS, st.sampled_from(["+", "-"]), NUMBERS)
def test_worked_lines_end_in_the_right_answer(first: int, operator: str, second: int) -> None:
    text = "\n".join(worked_lines(first, operator, second))
    verdict = check_sum(text, text)
    assert final_answer(text) == (first + second if operator == "+" else first - second)
    assert verdict.answer_ok and verdict.steps_ok and not verdict.first_wrong


@given(NUMBERS, st.sampled_from(["+", "-"]), NUMBERS)
def test_every_row_is_true_arithmetic(first: int, operator: str, second: int) -> None:
    for line in worked_lines(first, operator, second):
        if " = " in line:
            left, right = line.split(" so ")[-1].split(" = ")
            numbers = [int(n) for n in left.replace("-", "+").split(" + ")]
            expected = sum(numbers) if operator == "+" else numbers[0] - numbers[1] - numbers[2]
            assert int(right.split()[0]) == expected


def test_a_sum_with_carries_looks_as_documented() -> None:
    assert worked_lines(47, "+", 389) == (
        "0 4 7 + 3 8 9",
        "7 + 9 + 0 = 16 write 6 carry 1",
        "4 + 8 + 1 = 13 write 3 carry 1",
        "0 + 3 + 1 = 4 write 4 carry 0",
        "digits: 4 3 6",
        "answer: 436",
    )


def test_a_difference_with_a_borrow_and_a_negative_result() -> None:
    assert worked_lines(7, "-", 12) == (
        "7 - 12 is below zero",
        "1 2 - 0 7",
        "2 - 7 - 0 borrow 1 so 12 - 7 - 0 = 5",
        "1 - 0 - 1 borrow 0 so 1 - 0 - 1 = 0",
        "digits: 0 5",
        "answer: -5",
    )


@pytest.mark.parametrize(
    ("change", "answer_ok", "first_wrong"),
    [
        (
            lambda lines: [*lines[:2], "1 + 1 + 0 = 3 write 3 carry 0", *lines[3:]],
            True,
            "line 3: got '1 + 1 + 0 = 3",
        ),
        (
            lambda lines: [*lines[:-1], "answer: 999"],
            False,
            "line 5: got 'answer: 999', expected 'answer: 27'",
        ),
        (lambda lines: lines[:-1], False, "line 5: got 'nothing', expected 'answer: 27'"),
        (lambda lines: [*lines, "and more"], True, "line 6: got 'and more', expected 'nothing'"),
    ],
)
def test_the_first_wrong_line_is_named(
    change: Callable[[list[str]], list[str]], answer_ok: bool, first_wrong: str
) -> None:
    right = worked_lines(15, "+", 12)
    verdict = check_sum("\n".join(right), "\n".join(change(list(right))))
    assert verdict.answer_ok is answer_ok and not verdict.steps_ok
    assert verdict.first_wrong.startswith(first_wrong)


def test_text_without_an_answer_line_has_no_answer() -> None:
    assert final_answer("the answer is 12") is None
    assert check_sum("answer: 2", "two").answer is None


def test_a_right_answer_behind_wrong_steps_is_told_apart() -> None:
    right = "\n".join(worked_lines(907, "-", 38))
    verdict = check_sum(right, "answer: 869")
    assert verdict.answer == 869 and verdict.answer_ok and not verdict.steps_ok
    assert check_sum(right, f"\n{right}\n").steps_ok, "white space around it is of no account"


def test_a_solution_without_an_answer_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError, match="must state its answer"):
        check_sum("9 0 7 - 0 3 8", "answer: 869")
