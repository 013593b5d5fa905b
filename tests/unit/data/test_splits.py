"""What training sees and what tests ask never meet: content, fonts, voices, templates, numbers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from phi4.data import generate
from phi4.data.fonts import HELD_OUT_FACES, TRAIN_FACES
from phi4.data.records import Record, stream
from phi4.data.splits import draw, split_of
from phi4.data.voices import DIALECTS, HELD_OUT_DIALECT, HELD_OUT_VARIANTS, TRAIN_VARIANTS
from phi4.data.world.charts import Chart
from phi4.data.world.sentences import HELD_OUT_EVERY
from phi4.data.world.sums import pair_key
from phi4.types import TextPart


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
    "sums": ("sum", lambda r: pair_key((r.metadata["first"], r.metadata["second"]))),
    "text": ("document", lambda r: r.document),
}


@pytest.mark.parametrize("task", CONTENT)
def test_content_of_a_split_hashes_into_that_split(task: str) -> None:
    kind, key = CONTENT[task]
    for split in ("train", "test", "examples"):
        found = {key(generate(task, split, index)) for index in range(60)}
        assert {split_of(kind, content) for content in found} == {split}


def test_commands_with_their_tool_are_disjoint() -> None:
    def keys(split: str) -> set[str]:
        made = [generate("command", split, i) for i in range(1500)]
        return {f"{typed(r)} {r.reply.tool_calls[0].name}" for r in made if r.reply.tool_calls}

    train, test = keys("train"), keys("test")
    assert len(train) > 900 and len(test) > 300
    assert not train & test


def test_spoken_numbers_are_disjoint_whatever_is_asked_about_them() -> None:
    sums = {
        split: {generate("speech_qa", split, i).metadata["numbers"] for i in range(60)}
        for split in ("train", "test")
    }
    assert not sums["train"] & sums["test"]


def test_worked_sums_in_documents_keep_test_operands_out() -> None:
    seen = 0
    for index in range(400):
        record = generate("text", "train", index)
        if record.metadata["kind"] == "worked":
            first, _, second = (part.replace(" ", "") for part in operands(record.document))
            assert split_of("sum", pair_key((int(first), int(second)))) == "train"
            seen += 1
    assert seen > 10


def operands(worked: str) -> tuple[str, str, str]:
    line = next(line for line in worked.splitlines() if "below zero" not in line)
    operator = "+" if "+" in line else "-"
    first, second = line.split(operator)
    return first, operator, second


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
