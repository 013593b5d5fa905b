"""Charts: every answer follows from the picture's facts, and none can be guessed without it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from phi4.data import Record, generate
from phi4.data.world.charts import COLOURS, MIN_BAR_PX
from phi4.types import TextPart

CHARTS = [generate("chart_qa", split, i) for split in ("train", "test") for i in range(250)]


def question_of(record: Record) -> str:
    (text,) = (p.text for p in record.messages[0].parts if isinstance(p, TextPart))
    return text


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
    return colours[place] if "colour" in words else str(values[place])


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
        values = record.metadata["values"]
        heights = {}
        for number, colour in enumerate(record.metadata["colours"]):
            column = picture[:, round(8 + 210 / len(values) * (number + 0.5)) - 6]
            painted = np.abs(column - np.array(COLOURS[colour])).max(axis=1) < 40
            # The longest run, since ink of a dark bar's own text may lie in the same column.
            runs = "".join("x" if p else " " for p in painted).split()
            heights[values[number]] = max(map(len, runs), default=0)
        scale = heights[max(values)] / max(values)
        for value, height in heights.items():
            assert height == pytest.approx(max(MIN_BAR_PX, value * scale), abs=4), record.metadata


def test_characters_of_labels_and_values_are_located() -> None:
    for record in CHARTS[:60]:
        made = record.metadata
        spelled = "".join(sorted(g[0] for g in made["glyphs"]))
        assert spelled == "".join(sorted("".join(made["labels"]) + "".join(map(str, made["values"]))))
        assert all(0 < x < 224 and 0 < y < 224 for _, x, y in made["glyphs"])


def test_a_spoken_question_has_no_text_and_says_what_is_asked() -> None:
    for index in range(15):
        record = generate("spoken_chart_qa", "test", index)
        made = record.metadata
        assert not any(isinstance(p, TextPart) for m in record.messages for p in m.parts)
        expected = answer_by_reading(made["spoken"], made["labels"], made["values"], made["colours"])
        assert record.answers == (expected,)


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
