"""The registry of tasks: what each asks, which held-out records it uses, how an answer is judged.

Names are what `phi4 eval --tasks` takes. Samples come from the test split of `phi4.data`: fonts and voices
that training never uses, content that belongs to the split by hash, and all templates of sentences, of which
only one in twelve is never trained (an extra figure shows those apart). What is not held out: docs/data.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

from phi4.data import Record, generate
from phi4.errors import InvalidRequest
from phi4.evals.controls import Kind
from phi4.evals.extras import ANSWER_RIGHT, CALL_RUNS, UNSEEN_DIALECT, UNSEEN_TEMPLATES, Extra
from phi4.evals.samples import Sample
from phi4.evals.scorers import (
    Expected,
    Scorer,
    character_error_rate,
    exact_answer,
    exact_sum,
    exact_tool_calls,
    word_error_rate,
)
from phi4.types import Modality

Metric = Literal["exact", "CER", "WER"]


@dataclass(frozen=True)
class Task:
    """One row of a report.

    Attributes:
        name: Short name, unique.
        title: What it asks, in words.
        metric: What the error rate counts: wrong answers, characters or words.
        media: Kinds of media in every sample, in prompt order; empty for text.
        scorer: Judges one answer.
        samples: Makes the first n samples, always the same.
        max_new_tokens: Length limit of an answer; a longer right answer does not exist.
        aim: Score aimed at; None where none is set.
        extras: Further figures of the same answers.
    """

    name: str
    title: str
    metric: Metric
    media: tuple[Kind, ...]
    scorer: Scorer
    samples: Callable[[int], list[Sample]]
    max_new_tokens: int
    aim: float | None = None
    extras: tuple[Extra, ...] = ()


def choose(names: Sequence[str] | None = None) -> list[Task]:
    """Tasks by name, in the order asked for; all without names.

    Raises:
        InvalidRequest: An unknown name.
    """
    if names is None:
        return list(TASKS.values())
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise InvalidRequest(f"unknown task {unknown[0]!r}; there are {', '.join(TASKS)}")
    return [TASKS[name] for name in names]


def within(tasks: Sequence[Task], modalities: Sequence[Modality]) -> list[Task]:
    """Those tasks a model with these modalities can be asked."""
    needs: dict[Kind, Modality] = {"image": "vision", "audio": "speech"}
    return [task for task in tasks if all(needs[kind] in modalities for kind in task.media)]


def sample_of(record: Record) -> Sample:
    """A record as a sample: its prompt, its answers as what is expected, and how it was made."""
    calls = record.reply.tool_calls
    expected = Expected(tool_calls=calls) if calls else Expected(record.answers[0], (), record.answers[1:])
    name = f"{record.task}/{record.split}/{record.index}"
    return Sample(name, record.messages, expected, record.tools, record.metadata)


def _records(task: str, **wanted: str) -> Callable[[int], list[Sample]]:
    """The first n held-out records of a generator, of those whose metadata hold the wanted values."""

    def samples(n: int) -> list[Sample]:
        found: list[Sample] = []
        for index in count():
            if len(found) == n:
                return found
            assert index < 100 * n, f"{task} has hardly any record with {wanted}"
            record = generate(task, "test", index)
            if all(record.metadata.get(key) == value for key, value in wanted.items()):
                found.append(sample_of(record))
        raise AssertionError("count() does not end")

    return samples


_ALL = (
    Task(
        name="read_text",
        title="read the text in a picture, letter by letter",
        metric="CER",
        media=("image",),
        scorer=character_error_rate,
        samples=_records("read_text"),
        max_new_tokens=64,
        aim=0.95,
    ),
    Task(
        name="speech_sentences",
        title="write down a spoken sentence; unseen voices and sentences",
        metric="WER",
        media=("audio",),
        scorer=word_error_rate,
        samples=_records("speech_transcribe", kind="sentence"),
        max_new_tokens=96,
        aim=0.90,
        extras=(UNSEEN_TEMPLATES, UNSEEN_DIALECT),
    ),
    Task(
        name="speech_salad",
        title="write down spoken words in random order, where grammar is of no help",
        metric="WER",
        media=("audio",),
        scorer=word_error_rate,
        samples=_records("speech_transcribe", kind="salad"),
        max_new_tokens=96,
    ),
    Task(
        name="spoken_chart_qa",
        title="answer a spoken question about a chart: picture and recording in one prompt",
        metric="exact",
        media=("image", "audio"),
        scorer=exact_answer,
        samples=_records("spoken_chart_qa"),
        max_new_tokens=32,
        aim=0.70,
    ),
    Task(
        name="chart_qa",
        title="answer a typed question about a chart",
        metric="exact",
        media=("image",),
        scorer=exact_answer,
        samples=_records("chart_qa"),
        max_new_tokens=32,
    ),
    Task(
        name="speech_qa",
        title="answer a spoken question",
        metric="exact",
        media=("audio",),
        scorer=exact_answer,
        samples=_records("speech_qa"),
        max_new_tokens=32,
    ),
    Task(
        name="table_qa",
        title="answer the questions of chart_qa about a chart in words: the part that needs no eyes",
        metric="exact",
        media=(),
        scorer=exact_answer,
        samples=_records("table_qa"),
        max_new_tokens=32,
    ),
    Task(
        name="number_qa",
        title="answer the questions of speech_qa in words: the part that needs no ears",
        metric="exact",
        media=(),
        scorer=exact_answer,
        samples=_records("number_qa"),
        max_new_tokens=32,
    ),
    Task(
        name="command",
        title="turn a typed household command into the right tool call, or say that no tool fits",
        metric="exact",
        media=(),
        scorer=exact_tool_calls,
        samples=_records("command"),
        max_new_tokens=128,
        aim=0.90,
        extras=(CALL_RUNS,),
    ),
    Task(
        name="spoken_command",
        title="the same, spoken",
        metric="exact",
        media=("audio",),
        scorer=exact_tool_calls,
        samples=_records("spoken_command"),
        max_new_tokens=128,
        extras=(CALL_RUNS,),
    ),
    Task(
        name="sums",
        title="add or subtract numbers of up to three digits; right = the answer and every step",
        metric="exact",
        media=(),
        scorer=exact_sum,
        samples=_records("sums"),
        max_new_tokens=256,
        aim=0.90,
        extras=(ANSWER_RIGHT,),
    ),
)

TASKS: dict[str, Task] = {task.name: task for task in _ALL}
"""Every task by name, in the order of a report."""
