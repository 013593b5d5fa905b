"""What training sees and what tests ask never meet: content, fonts, voices, templates, numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from phi4.data import SPLITS, generate
from phi4.data.fonts import HELD_OUT_FACES, TRAIN_FACES
from phi4.data.records import Record, Split, stream
from phi4.data.splits import draw, split_of
from phi4.data.voices import DIALECTS, HELD_OUT_DIALECT, HELD_OUT_VARIANTS, TRAIN_VARIANTS
from phi4.data.world import commands, pages
from phi4.data.world.charts import HELD_OUT_QUESTIONS, Chart
from phi4.data.world.sentences import HELD_OUT_EVERY
from phi4.data.world.sums import QUESTIONS, pair_key
from phi4.data.world.tools import TOOLS
from phi4.types import TextPart

Reader = Callable[[str], tuple[tuple[int, ...], int]]


def typed(record: Record) -> str:
    return "".join(p.text for p in record.messages[-1].parts if isinstance(p, TextPart))


def chart_key(record: Record) -> str:
    made = record.metadata
    return Chart(tuple(made["labels"]), tuple(made["values"]), tuple(made["colours"])).key


CONTENT = {
    "speech_transcribe": ("sentence", lambda r: r.answers[0]),
    "read_text": ("read_text", lambda r: r.answers[0]),
    "chart_qa": ("chart", chart_key),
    "spoken_chart_qa": ("chart", chart_key),
    "table_qa": ("chart", chart_key),
    "sums": ("sum", lambda r: pair_key((r.metadata["first"], r.metadata["second"]))),
    "text": ("document", lambda r: r.document),
}


@pytest.mark.parametrize("task", CONTENT)
def test_content_of_a_split_hashes_into_that_split(task: str) -> None:
    kind, key = CONTENT[task]
    for split in ("train", "test", "examples"):
        found = {key(generate(task, split, index)) for index in range(60)}
        assert {split_of(kind, content) for content in found} == {split}


def is_of(split: str, numbers: Sequence[int]) -> bool:
    """Whether a pair of operands, or a single number, belongs to a split."""
    kind, key = ("sum", pair_key((numbers[0], numbers[1]))) if len(numbers) == 2 else ("number", numbers[0])
    return split_of(kind, str(key)) == split


@lru_cache(maxsize=2)
def written(split: str) -> tuple[Record, ...]:
    # Few of "test": whole documents are drawn until one belongs there, and so are their parts.
    return tuple(generate("text", split, i) for i in range({"train": 1500, "test": 400}[split]))


def documents(split: str, *kinds: str) -> list[str]:
    return [record.document for record in written(split) if record.metadata["kind"] in kinds]


@pytest.mark.parametrize("split", SPLITS)
def test_spoken_and_typed_questions_ask_about_pairs_and_numbers_of_their_split(
    split: str, read_question: Reader
) -> None:
    spoken = [generate("speech_qa", split, i).metadata for i in range(60)]
    printed = [generate("number_qa", split, i) for i in range(60)]
    asked = spoken + [r.metadata | {"spoken": typed(r)} for r in printed]
    assert {len(made["numbers"].split()) for made in asked} == {1, 2}
    for made in asked:
        said, _ = read_question(made["spoken"])
        assert made["numbers"] == " ".join(map(str, sorted(said)))
        assert is_of(split, said), made["spoken"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_worked_sums_in_documents_have_operands_of_their_split(split: str) -> None:
    found = [operands(document) for document in documents(split, "worked")]
    assert len(found) > 10
    assert all(is_of(split, pair) for pair in found)


def operands(worked: str) -> tuple[int, int]:
    line = next(line for line in worked.splitlines() if "below zero" not in line)
    first, second = line.split("+" if "+" in line else "-")
    return int(first.replace(" ", "")), int(second.replace(" ", ""))


@pytest.mark.parametrize("split", ["train", "test"])
def test_questions_in_documents_ask_about_pairs_and_numbers_of_their_split(
    split: str, read_question: Reader
) -> None:
    lines = [line for document in documents(split, "asked") for line in document.splitlines()[::2]]
    assert len(lines) > 25
    assert all(is_of(split, read_question(line)[0]) for line in lines)


@pytest.mark.parametrize("split", ["train", "test"])
def test_names_of_numbers_from_a_hundred_on_stay_in_their_split(split: str) -> None:
    text = "\n".join(documents(split, "number words"))
    named = [int(digits) for digits in re.findall(r"\d+", text)]
    assert len(named) == len(text.splitlines()) > 40
    large = [number for number in named if number >= 100]
    assert len(large) > 20
    assert all(is_of(split, [number]) for number in large)


@pytest.mark.parametrize("split", ["train", "test"])
def test_tables_in_documents_are_of_charts_of_their_split(
    split: str, read_table: Callable[[str], Any]
) -> None:
    tables = [read_table(document) for document in documents(split, "table", "more tables")]
    assert len(tables) > 20
    keys = {Chart(table.labels, table.values, table.colours).key for table in tables}
    assert {split_of("chart", key) for key in keys} == {split}


def held_out_form(question: str) -> str:
    """A pattern for a question about charts, in lower case, whatever label and colour it names."""
    return question.lower().rstrip("?").format(label="[a-z]+", colour="[a-z]+")


def test_tables_never_ask_in_the_held_out_words() -> None:
    text = "\n".join(documents("train", "table", "more tables")).lower()
    assert "what is the value of" in text
    for form in HELD_OUT_QUESTIONS.values():
        assert not re.search(held_out_form(form), text), form


def watch(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[tuple[str, str, str]]:
    """Returns a list that fills with (split, kind, key) of what a module of the world draws."""
    drawn: list[tuple[str, str, str]] = []

    def watched(
        rng: np.random.Generator,
        split: Split,
        kind: str,
        make: Callable[[np.random.Generator], Any],
        key: Callable[[Any], str] = str,
    ) -> Any:
        content = draw(rng, split, kind, make, key)
        drawn.append((split, kind, key(content)))
        return content

    monkeypatch.setattr(module, "draw", watched)
    return drawn


@pytest.mark.parametrize("split", SPLITS)
def test_pages_are_made_of_pieces_of_their_split(split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands on a page may be cut, and pieces stand side by side; what is drawn for it is whole."""
    drawn = watch(monkeypatch, pages)
    shown = [word for i in range(5) for word in generate("page", split, i).answers[0].split()]
    assert {(into, kind) for into, kind, _ in drawn} == {(split, "read_text")}
    assert {split_of("read_text", piece) for _, _, piece in drawn} == {split}
    known = {word for _, _, piece in drawn for word in piece.split()}
    assert all(any(word.startswith(cut) for word in known) for cut in shown), "nothing else is on a page"


@pytest.mark.parametrize("split", ["train", "test"])
def test_commands_with_their_tool_hash_into_their_split(split: str) -> None:
    made = [generate("command", split, i) for i in range(300)]
    keys = {f"{typed(r)} {r.reply.tool_calls[0].name}" for r in made if r.reply.tool_calls}
    assert len(keys) > 100
    assert {split_of("command", key) for key in keys} == {split}


@pytest.mark.parametrize("split", ["train", "test"])
def test_spoken_commands_are_held_out_as_typed_ones_are(split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = watch(monkeypatch, commands)
    for index in range(30):
        spoken = generate("spoken_command", split, index).metadata["spoken"]
        into, kind, key = drawn[-1]
        assert (into, kind, split_of(kind, key)) == (split, "command", split)
        assert commands.speakable(key.rpartition(" ")[0]) == spoken


@pytest.mark.parametrize("split", ["train", "test"])
def test_sentences_in_documents_and_small_talk_belong_to_their_split(split: str) -> None:
    said = [line for document in documents(split, "plain") for line in document.splitlines()]
    said += [line for document in documents(split, "story") for line in re.split(r"(?<=[.?]) ", document)]
    talk = [generate("chat", split, i) for i in range(200)]
    repeated = [record.answers[0] for record in talk if record.metadata["kind"] == "say"]
    assert len(said) > 60 and len(repeated) > 15
    assert {split_of("sentence", text.lower().rstrip(".?")) for text in said + repeated} == {split}


@pytest.mark.parametrize("split", ["train", "test"])
def test_questions_without_an_answer_and_words_to_spell_belong_to_their_split(split: str) -> None:
    talk = [generate("chat", split, i) for i in range(200)]
    asked = {typed(record) for record in talk if record.metadata["kind"] == "unknown"}
    spelled = {record.answers[0].replace(" ", "") for record in talk if record.metadata["kind"] == "spell"}
    assert len(asked) > 10 and len(spelled) > 3
    assert {split_of("chat", key) for key in asked | spelled} == {split}


def test_voices_and_the_dialect_are_held_out() -> None:
    assert not set(TRAIN_VARIANTS) & set(HELD_OUT_VARIANTS)
    heard = {
        split: Counter(generate("speech_transcribe", split, i).metadata["voice"] for i in range(80))
        for split in ("train", "test")
    }
    assert {v.split("+")[1] for v in heard["test"]} <= set(HELD_OUT_VARIANTS)
    assert {v.split("+")[1] for v in heard["train"]} <= set(TRAIN_VARIANTS)
    assert HELD_OUT_DIALECT not in {v.split("+")[0] for v in heard["train"]}
    assert {v.split("+")[0] for v in heard["test"]} == set(DIALECTS)


def test_fonts_are_held_out() -> None:
    assert not set(TRAIN_FACES) & set(HELD_OUT_FACES)
    for task in ("read_text", "chart_qa"):
        used = {
            split: {generate(task, split, i).metadata["face"] for i in range(60)}
            for split in ("train", "test")
        }
        assert used["train"] <= set(TRAIN_FACES) and used["test"] <= set(HELD_OUT_FACES)
        assert len(used["train"]) > 4 and len(used["test"]) > 2


def test_some_templates_of_sentences_and_questions_are_held_out() -> None:
    train = [generate("speech_transcribe", "train", i).metadata.get("template") for i in range(80)]
    test = [generate("speech_transcribe", "test", i).metadata.get("template") for i in range(80)]
    assert not any(t is not None and t % HELD_OUT_EVERY == 0 for t in train)
    assert any(t is not None and t % HELD_OUT_EVERY == 0 for t in test)
    asked = {
        split: {typed(generate("read_text", split, i)) for i in range(80)} for split in ("train", "test")
    }
    assert len(asked["test"] - asked["train"]) == 3


def test_some_ways_to_ask_are_never_trained() -> None:
    def asked(task: str, split: str, count: int) -> list[str]:
        return [typed(generate(task, split, i)).lower() for i in range(count)]

    charts = [re.compile(held_out_form(form)) for form in HELD_OUT_QUESTIONS.values()]
    sums = [re.compile(re.escape(forms[-1].split("{")[0].lower())) for forms in QUESTIONS.values()]
    for task, forms, count in (("chart_qa", charts, 60), ("sums", sums, 200)):
        for split, expected in (("train", False), ("test", True)):
            found = any(form.search(question) for question in asked(task, split, count) for form in forms)
            assert found is expected, (task, split)


def test_the_last_template_of_each_tool_is_never_trained() -> None:
    last = {name: len(tool.templates) - 1 for tool in TOOLS for name in tool.names}
    for split, expected in (("train", False), ("test", True)):
        made = [generate("command", split, i) for i in range(200)]
        calls = [(r.metadata["template"], r.reply.tool_calls[0].name) for r in made if r.reply.tool_calls]
        assert any(template == last[name] for template, name in calls) is expected, split


def test_shares_of_the_splits_are_as_documented() -> None:
    shares = Counter(split_of("any", str(n)) for n in range(20000))
    assert shares["test"] / 20000 == pytest.approx(0.06, abs=0.006)
    assert shares["examples"] / 20000 == pytest.approx(0.02, abs=0.004)


def test_a_pool_without_content_of_the_split_is_an_error_not_an_endless_loop() -> None:
    with pytest.raises(AssertionError, match="pool is too small"):
        draw(stream("x"), "examples", "any", lambda rng: "the same")


def test_streams_of_different_keys_are_unrelated() -> None:
    first, second = (stream("task", "train", 0, i).random(1000) for i in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1
    assert np.array_equal(first, stream("task", "train", 0, 0).random(1000))
