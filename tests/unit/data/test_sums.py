"""Sums: the worked solutions are right, in both operators and all sizes."""

from __future__ import annotations

from collections import Counter

from phi4.data import generate
from phi4.types import TextPart
from phi4.verify import check_sum, worked_lines

RECORDS = [generate("sums", split, i) for split in ("train", "test") for i in range(400)]


def test_every_worked_solution_passes_the_checker() -> None:
    for record in RECORDS:
        made = record.metadata
        first, operator, second = (made[name] for name in ("first", "operator", "second"))
        verdict = check_sum("\n".join(worked_lines(first, operator, second)), record.document)
        assert verdict.answer_ok and verdict.steps_ok, verdict
        assert verdict.answer == (first + second if operator == "+" else first - second)
        assert record.answers == (record.document, str(verdict.answer))


def test_both_operands_are_in_the_question() -> None:
    for record in RECORDS:
        question = "".join(p.text for p in record.messages[0].parts if isinstance(p, TextPart))
        for operand in (record.metadata["first"], record.metadata["second"]):
            assert str(operand) in question


def test_subtract_from_names_the_operands_the_other_way_round() -> None:
    found = [r for r in RECORDS if r.messages[0].parts[0].text.startswith("Subtract")]
    assert found
    for record in found:
        words = record.messages[0].parts[0].text.rstrip(".").split()
        assert (words[3], words[1]) == (str(record.metadata["first"]), str(record.metadata["second"]))


def test_the_mixture_covers_sizes_signs_and_operators() -> None:
    digits = Counter(len(str(r.metadata["first"])) for r in RECORDS)
    assert digits[3] > digits[2] > digits[1] > 20
    operators = Counter(r.metadata["operator"] for r in RECORDS)
    assert min(operators.values()) > 300
    negative = sum(int(r.answers[1]) < 0 for r in RECORDS)
    assert 10 < negative < 100
