"""Charts: every answer follows from the picture's facts, and none can be guessed without it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from phi4.data import Record, generate
from phi4.data.world.charts import COLOURS, EDGE_PX, HEIGHT_PX, MIN_BAR_PX, WIDTH_PX
from phi4.types import TextPart

CHARTS = [generate("chart_qa", split, i) for split in ("train", "test") for i in range(250)]


def question_of(record: Record) -> str:
    (text,) = (p.text for p in record.messages[-1].parts if isinstance(p, TextPart))
    return text


def turns_of(record: Record) -> list[tuple[str, str]]:
    """Every question of a conversation with its answer; lines above the first question are cut off."""
    said = ["".join(p.text for p in m.parts if isinstance(p, TextPart)) for m in record.conversation]
    return [(q.splitlines()[-1], a) for q, a in zip(said[::2], said[1::2], strict=True)]


def answer_by_reading(question: str, labels: list[str], values: list[int], colours: list[str]) -> str:
    """Answers from the words of the question alone, not from the generator's own kind."""
    words = re.findall(r"[a-z]+", question.lower())
    named = [label for label in labels if label in words]
    painted = [colour for colour in colours if colour in words]
    large = any(w in words for w in ("largest", "highest"))
    small = any(w in words for w in ("smallest", "lowest"))
    if "bars" in words:
        return str(len(labels))
    if large or small:
        value = max(values) if large else min(values)
        return str(value) if {"number", "value"} & set(words) else labels[values.index(value)]
    if painted:
        place = colours.index(painted[0])
        return str(values[place]) if {"number", "value"} & set(words) else labels[place]
    place = labels.index(named[0])
    return colours[place] if "colour" in words else f"{labels[place]} {values[place]}"


def test_answers_follow_from_question_and_picture() -> None:
    for record in CHARTS:
        made = record.metadata
        expected = answer_by_reading(question_of(record), made["labels"], made["values"], made["colours"])
        assert record.answers == (expected,), question_of(record)


def test_nothing_in_a_chart_is_ambiguous() -> None:
    for record in CHARTS:
        for name in ("labels", "values", "colours"):
            assert len(set(record.metadata[name])) == len(record.metadata[name])


def test_the_most_frequent_answer_is_rare() -> None:
    answers = Counter(record.answers[0] for record in CHARTS)
    assert answers.most_common(1)[0][1] / len(CHARTS) < 0.06


def test_knowing_the_question_does_not_help_to_guess() -> None:
    """Best constant answer for each kind of question: an upper bound for a blind model."""
    kinds: dict[str, Counter[str]] = {}
    for record in CHARTS:
        kinds.setdefault(record.metadata["kind"], Counter())[record.answers[0]] += 1
    assert sum(c.most_common(1)[0][1] for c in kinds.values()) / len(CHARTS) < 0.15


def test_bars_are_painted_in_their_colour_up_to_their_value() -> None:
    for record in CHARTS[:60]:
        picture = record.media[0].source.astype(int)
        values, made = record.metadata["values"], record.metadata
        slot = (HEIGHT_PX - 2 * EDGE_PX) / len(values)
        widths = {}
        for number, colour in enumerate(made["colours"]):
            row = picture[round(EDGE_PX + slot * (number + 0.5)) - round(slot * 0.2)]
            painted = np.abs(row - np.array(COLOURS[colour])).max(axis=1) < 40
            # The longest run, since ink of a dark bar's own text may lie in the same row.
            runs = "".join("x" if p else " " for p in painted).split()
            widths[values[number]] = max(map(len, runs), default=0)
        scale = widths[max(values)] / max(values)
        for value, width in widths.items():
            assert width == pytest.approx(max(MIN_BAR_PX, value * scale), abs=4), made


def test_a_label_its_bar_and_its_value_stand_in_one_line() -> None:
    """What reads a picture line by line meets the value of a label before the next label."""
    for record in CHARTS[:60]:
        made = record.metadata
        rows: dict[float, list[tuple[float, str]]] = {}
        for character, x, y in made["glyphs"]:
            rows.setdefault(y, []).append((x, character))
        read = ["".join(c for _, c in sorted(row)) for _, row in sorted(rows.items())]
        assert read == [f"{label}{v}" for label, v in zip(made["labels"], made["values"], strict=True)]


def test_characters_of_labels_and_values_are_located() -> None:
    for record in CHARTS[:60]:
        made = record.metadata
        spelled = "".join(sorted(g[0] for g in made["glyphs"]))
        assert spelled == "".join(sorted("".join(made["labels"]) + "".join(map(str, made["values"]))))
        assert all(0 < x < WIDTH_PX and 0 < y < HEIGHT_PX for _, x, y in made["glyphs"])


def test_a_spoken_question_has_no_text_and_says_what_is_asked() -> None:
    for index in range(15):
        record = generate("spoken_chart_qa", "test", index)
        made = record.metadata
        assert not any(isinstance(p, TextPart) for m in record.messages for p in m.parts)
        expected = answer_by_reading(made["spoken"], made["labels"], made["values"], made["colours"])
        assert record.answers == (expected,)


@pytest.mark.parametrize(("task", "count"), [("chart_qa", 4), ("table_qa", 8)])
def test_training_asks_several_questions_about_one_chart_and_the_test_one(task: str, count: int) -> None:
    for split, turns in (("train", count), ("test", 1)):
        for record in (generate(task, split, i) for i in range(60)):
            made = record.metadata
            asked = turns_of(record)
            assert len(asked) == turns and asked[-1][1] == record.answers[0]
            for question, answer in asked:
                right = answer_by_reading(question, made["labels"], made["values"], made["colours"])
                assert answer == right, question


def test_a_typed_table_says_what_the_picture_would_show(read_table: Callable[[str], Any]) -> None:
    for index in range(40):
        record = generate("table_qa", "test", index)
        made, prompt = record.metadata, "".join(p.text for p in record.messages[0].parts)  # type: ignore[union-attr]
        table = read_table(f"{prompt}\n{record.answers[0]}")
        assert [list(c) for c in (table.labels, table.values, table.colours)] == [
            made["labels"],
            made["values"],
            made["colours"],
        ]


def test_answers_below_a_table_in_words_follow_from_it(read_table: Callable[[str], Any]) -> None:
    asked = 0
    for index in range(1000):
        record = generate("text", "train", index)
        if record.metadata["kind"] in ("table", "more tables"):
            table = read_table(record.document)
            columns = (list(table.labels), list(table.values), list(table.colours))
            assert all(len(set(column)) == len(column) >= 2 for column in columns)
            for question, answer in table.asked:
                assert answer == answer_by_reading(question, *columns), record.document
                asked += 1
    assert asked > 100
