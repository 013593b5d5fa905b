"""Documents and small talk: plain text of the small world, honest about its limits."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import pytest

from phi4.data import generate
from phi4.data.records import stream
from phi4.data.world.chat import ABILITIES, UNKNOWN, WHO
from phi4.data.world.documents import printed
from phi4.data.world.numbers import number_words
from phi4.data.world.sentences import TEMPLATES, fill, salad, sentence
from phi4.data.world.words import POOLS, SALAD_WORDS

DOCUMENTS = [generate("text", "train", i) for i in range(600)]


def test_documents_are_plain_text_without_a_prompt() -> None:
    for record in DOCUMENTS:
        assert not record.messages and not record.tools
        assert 3 <= len(record.document) <= 600
        assert "<|" not in record.document and "{" not in record.document


def test_all_kinds_of_documents_occur() -> None:
    kinds = Counter(record.metadata["kind"] for record in DOCUMENTS)
    assert len(kinds) == 17 and min(kinds.values()) > 20


def test_sums_and_comparisons_in_documents_are_true() -> None:
    facts = 0
    for record in DOCUMENTS:
        if record.metadata["kind"] == "digit facts":
            for line in record.document.splitlines():
                left, right = line.split(" = ")
                numbers = [int(n) for n in re.findall(r"\d+", left)]
                assert int(right) == (sum(numbers) if "+" in left else numbers[0] - sum(numbers[1:]))
                facts += 1
        for first, relation, second in re.findall(r"(\d+) is (larger|smaller) than (\d+)", record.document):
            assert (int(first) > int(second)) == (relation == "larger")
            facts += 1
    assert facts > 100


def test_questions_about_numbers_in_documents_are_answered_right(
    read_question: Callable[[str], tuple[tuple[int, ...], int]],
) -> None:
    asked = 0
    for document in (record.document for record in DOCUMENTS if record.metadata["kind"] == "asked"):
        lines = document.splitlines()
        for question, answer in zip(lines[::2], lines[1::2], strict=True):
            assert answer == str(read_question(question)[1]), document
            asked += 1
    assert asked > 40


def test_names_of_numbers_in_documents_are_true(number_of: Callable[[str], int]) -> None:
    named = 0
    for document in (record.document for record in DOCUMENTS if record.metadata["kind"] == "number words"):
        for line in document.splitlines():
            first, second = re.split(r" is | = ", line)
            digits, words = (first, second) if first.isdigit() else (second, first)
            assert number_of(words) == int(digits), line
            named += 1
    assert named > 60


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (99, "ninety nine"),
        (100, "one hundred"),
        (707, "seven hundred and seven"),
    ],
)
def test_numbers_are_said_as_people_say_them(number: int, words: str) -> None:
    assert number_words(number) == words


def test_number_words_are_all_different() -> None:
    assert len({number_words(n) for n in range(1000)}) == 1000


def test_print_has_capitals_and_a_stop() -> None:
    assert printed("on friday anna and i walk") == "On Friday Anna and I walk."
    assert printed("where is the cat") == "Where is the cat?"


def test_there_are_enough_templates_and_each_can_be_filled() -> None:
    assert len(set(TEMPLATES)) == len(TEMPLATES) >= 100
    for number, template in enumerate(TEMPLATES):
        filled = fill(template, stream("fill", number))
        assert re.fullmatch(r"[a-z ]+", filled), filled
        assert not re.search(r"\ba [aeiou]", filled), filled


def test_every_slot_names_a_pool() -> None:
    for template in TEMPLATES:
        assert {slot for slot in re.findall(r"\{([a-z]+)\d?\}", template)} <= set(POOLS)


def test_salad_draws_evenly_from_its_words() -> None:
    rng = stream("salad")
    words = Counter(word for _ in range(2000) for word in salad(rng, "train").split())
    assert set(words) <= set(SALAD_WORDS)
    assert words.most_common(1)[0][1] / words.total() < 0.006
    lengths = Counter(len(salad(rng, "train").split()) for _ in range(600))
    assert set(lengths) == set(range(3, 9))


def test_sentences_vary() -> None:
    rng = stream("sentences")
    assert len({sentence(rng, "train")[0] for _ in range(500)}) > 480


def test_nano_says_who_it_is_and_what_it_does_not_know() -> None:
    answers = Counter(generate("chat", "train", i).answers[0] for i in range(300))
    assert min(answers[WHO], answers[ABILITIES], answers[UNKNOWN]) > 5
    for index in range(100):
        record = generate("chat", "train", index)
        roles = [message.role for message in record.conversation]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
