"""Edit distance agrees with its definition; errors are counted as they should be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi4.verify.textmatch import character_errors, edit_distance, normalise, word_errors

WORDS = st.text("abc", max_size=9)


def by_definition(first: str, second: str) -> int:
    if not first or not second:
        return len(first) + len(second)
    return min(
        by_definition(first[1:], second) + 1,
        by_definition(first, second[1:]) + 1,
        by_definition(first[1:], second[1:]) + (first[0] != second[0]),
    )


@given(st.text("abc", max_size=5), st.text("abc", max_size=5))
def test_edit_distance_is_the_recursive_definition(first: str, second: str) -> None:
    assert edit_distance(first, second) == by_definition(first, second)


@given(WORDS, WORDS, WORDS)
def test_edit_distance_is_a_metric(first: str, second: str, third: str) -> None:
    assert edit_distance(first, second) == edit_distance(second, first)
    assert (edit_distance(first, second) == 0) == (first == second)
    assert edit_distance(first, third) <= edit_distance(first, second) + edit_distance(second, third)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors", "words"),
    [
        ("the cat sat", "the cat sat", 0, 3),
        ("the cat sat", "The cat, sat.", 0, 3),
        ("the cat sat", "the hat sat down", 2, 3),
        ("the cat", "", 2, 2),
    ],
)
def test_word_errors_ignore_case_and_marks(reference: str, hypothesis: str, errors: int, words: int) -> None:
    assert word_errors(reference, hypothesis) == (errors, words)


def test_character_errors_count_case_and_marks_but_not_outer_space() -> None:
    assert character_errors("Gate 7", " Gate 7\n") == (0, 6)
    assert character_errors("Gate 7", "gate 1") == (2, 6)


def test_normalising_keeps_apostrophes_inside_words() -> None:
    assert normalise("  Don't  stop-now! ") == "don't stop now"
