"""The door to all records: pure, complete, and clear about bad arguments."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from phi4.data import SPLITS, TASKS, Record, generate
from phi4.errors import InvalidRequest
from phi4.types import AudioPart, ImagePart, TextPart

INDICES = (0, 7, 1 << 40)
ONE_LEVEL = ("speech_qa", "number_qa", "command", "spoken_command", "chat")


def digest(record: Record) -> str:
    """SHA-256 of everything in a record."""
    seen = hashlib.sha256(repr((record.answers, record.tools, record.reply, dict(record.metadata))).encode())
    for message in record.messages:
        for part in message.parts:
            if isinstance(part, TextPart):
                seen.update(part.text.encode())
            else:
                assert isinstance(part.source, np.ndarray)
                seen.update(repr(part.source.shape).encode() + part.source.tobytes())
    return seen.hexdigest()


def digests() -> dict[str, str]:
    return {f"{task}/{i}": digest(generate(task, "train", i, seed=3)) for task in TASKS for i in INDICES}


def test_another_process_makes_the_same_records_in_another_order() -> None:
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); import test_generate as t\n"
        "from phi4.data import generate\n"
        "keys = [(task, i) for task in reversed(list(t.TASKS)) for i in reversed(t.INDICES)]\n"
        "print(json.dumps({f'{k}/{i}': t.digest(generate(k, 'train', i, seed=3)) for k, i in keys}))"
    )
    folder = __file__.rsplit("/", 1)[0]
    run = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == digests()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", SPLITS)
def test_every_task_answers_in_every_split(task: str, split: str) -> None:
    for index in range(5):
        record = generate(task, split, index)
        assert (record.task, record.split, record.index) == (task, split, index)
        assert record.answers and all(record.answers)
        assert record.conversation[-1] is record.reply
        assert record.reply.tool_calls or record.document == record.answers[0]
        json.dumps(dict(record.metadata))


@pytest.mark.parametrize("task", TASKS)
def test_seed_and_index_change_the_record(task: str) -> None:
    made = {digest(generate(task, "train", i, seed=s)) for s in range(3) for i in range(4)}
    assert len(made) >= 10


@pytest.mark.parametrize("task", ONE_LEVEL)
def test_tasks_of_one_level_ignore_difficulty(task: str) -> None:
    for index in range(3):
        easy, hard = (digest(generate(task, "train", index, difficulty=d)) for d in (0.0, 1.0))
        assert easy == hard


def test_documentation_names_the_tasks_that_ignore_difficulty(repository: Path) -> None:
    page = (repository / "docs" / "data.md").read_text(encoding="utf-8")
    for text in (page, str(generate.__doc__)):
        (named,) = re.findall(r"Ignored by ([^.]*)\.", " ".join(text.split()))
        assert set(re.findall(r"[a-z_]+", named)) - {"and"} == set(ONE_LEVEL)


def test_easy_reading_is_shorter_than_hard_reading() -> None:
    easy = [len(generate("read_text", "train", i, difficulty=0.0).answers[0]) for i in range(100)]
    hard = [len(generate("read_text", "train", i, difficulty=1.0).answers[0]) for i in range(100)]
    assert max(easy) <= 5 < np.mean(hard)


def test_easy_speech_has_many_recordings_of_one_or_two_words() -> None:
    easy = [generate("speech_transcribe", "train", i, difficulty=0.0) for i in range(40)]
    hard = [generate("speech_transcribe", "train", i, difficulty=1.0) for i in range(40)]
    short = [record for record in easy if record.metadata["kind"] == "words"]
    assert 10 < len(short) < 36
    assert all(1 <= len(record.answers[0].split()) <= 2 for record in short)
    assert {record.metadata["kind"] for record in hard} == {"sentence", "salad"}


@pytest.mark.parametrize("task", ["chart_qa", "spoken_chart_qa", "table_qa"])
def test_easy_charts_have_two_bars_and_hard_ones_up_to_four(task: str) -> None:
    bars = {
        difficulty: {
            len(generate(task, "train", i, difficulty=difficulty).metadata["labels"]) for i in range(30)
        }
        for difficulty in (0.0, 1.0)
    }
    assert bars == {0.0: {2}, 1.0: {2, 3, 4}}


def test_easy_documents_only_repeat_and_pairs_can_be_looked_up() -> None:
    easy = [generate("text", "train", i, difficulty=0.0) for i in range(60)]
    assert {record.metadata["kind"] for record in easy} == {"copying", "copying more", "pairs"}
    for record in easy:
        if record.metadata["kind"] == "pairs":
            lines = record.document.splitlines()
            count = len(lines) // 3
            assert count >= 2 and sorted(lines) == sorted(3 * lines[:count])
            assert len({line.split()[0] for line in lines}) == count, "a name with two things beside it"


def test_easy_pages_say_the_same_without_noise() -> None:
    easy, hard = ([generate("page", "train", i, difficulty=d) for i in range(10)] for d in (0.0, 1.0))
    assert [record.answers for record in easy] == [record.answers for record in hard]
    assert {record.metadata["noise"] for record in easy} == {0.0}
    assert max(record.metadata["noise"] for record in hard) > 1.0


def test_easy_sums_have_two_digits_at_most_and_hard_ones_three() -> None:
    def largest(difficulty: float) -> int:
        made = [generate("sums", "train", i, difficulty=difficulty).metadata for i in range(100)]
        return max(max(m["first"], m["second"]) for m in made)

    assert largest(0.0) < 100 < largest(0.5) < 1000


def test_media_are_arrays_of_the_agreed_kind() -> None:
    picture, sound = generate("spoken_chart_qa", "test", 0).media
    assert isinstance(picture, ImagePart) and isinstance(sound, AudioPart)
    assert picture.source.shape == (112, 224, 3) and picture.source.dtype == np.uint8
    assert sound.source.ndim == 1 and sound.source.dtype == np.float32
    assert np.abs(sound.source).max() <= 1.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sing", "train", 0), "unknown task 'sing'; valid are speech_transcribe"),
        (("sums", "dev", 0), "unknown split 'dev'; valid are train, test, examples"),
        (("sums", "train", -1), "index -1 must be 0 or more"),
    ],
)
def test_bad_arguments_name_what_is_valid(arguments: tuple[str, str, int], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        generate(*arguments)


def test_difficulty_above_one_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"difficulty 2.0 between 0 and 1"):
        generate("sums", "train", 0, difficulty=2.0)
