"""Recordings and questions about numbers: every answer follows from the words that are said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from phi4.data import SPLITS, generate
from phi4.data.records import Split, stream
from phi4.data.world.spoken import draw_question
from phi4.types import AudioPart, TextPart

Reader = Callable[[str], tuple[tuple[int, ...], int]]


def test_answers_to_spoken_questions_follow_from_the_words(read_question: Reader) -> None:
    for split in ("train", "test"):
        for index in range(40):
            record = generate("speech_qa", split, index)
            numbers, right = read_question(record.metadata["spoken"])
            assert record.answers == (str(right),), record.metadata["spoken"]
            assert record.metadata["numbers"] == " ".join(map(str, sorted(numbers)))
            assert [type(part) for part in record.messages[0].parts] == [AudioPart]


@pytest.mark.parametrize("split", SPLITS)
def test_every_way_to_ask_about_numbers_is_answered_right(read_question: Reader, split: Split) -> None:
    forms: Counter[str] = Counter()
    for index in range(600):
        key, question, answer = draw_question(stream("asked", index), split)
        numbers, right = read_question(question)
        assert (key, answer) == (" ".join(map(str, sorted(numbers))), str(right)), question
        assert right >= 0
        operator = next((word for word in ("plus", "minus", "add") if word in question.split()), "")
        forms[f"{question.split()[0]} {operator}"] += 1
    # "what " is the number after, "write " the number itself; the others have a pair of operands.
    assert set(forms) == {"what plus", "how plus", "add add", "what minus", "how minus", "what ", "write "}
    assert 200 < forms["what "] + forms["write "] < 400


def test_transcripts_are_asked_for_in_the_words_of_the_released_model() -> None:
    parts = generate("speech_transcribe", "train", 0).messages[0].parts
    assert isinstance(parts[0], AudioPart)
    assert parts[1:] == (TextPart("Transcribe the audio clip into text."),)
