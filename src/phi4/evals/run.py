"""Run tasks: held-out samples through a model, as they are and under each control, into a report.

The model is anything with `generate(requests)`; `phi4.load(...)` is one. Answers are greedy, so a
report can be made again. Requests go in batches and a callback hears of each, for a progress bar.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from phi4.engine.request import Request
from phi4.errors import InvalidRequest
from phi4.evals.controls import Control, controls_for
from phi4.evals.extras import ExtraResult, measure
from phi4.evals.intervals import Estimate, difference, error_rate, score
from phi4.evals.samples import Sample
from phi4.evals.scorers import Outcome, calls_as_text
from phi4.evals.tasks import Task
from phi4.types import Completion, SamplingParams

SHOWN = 5
"""Answers kept word for word in a row of the report."""


class Answerer(Protocol):
    """What evaluation asks of a model: all requests answered, in order."""

    def generate(self, requests: Sequence[Request]) -> Sequence[Completion]:
        """Answer a batch of requests."""
        ...


@dataclass(frozen=True)
class Answer:
    """One answer beside what was expected, for reading."""

    sample: str
    expected: str
    given: str
    right: bool


@dataclass(frozen=True)
class ControlResult:
    """A task's score under one control.

    Attributes:
        name: Name of the control.
        title: What the control does, in words.
        score: Score under the control.
        gain: Score of the task as it is minus `score`, paired by sample.
        removes_medium: True = this is a blind control.
        error_rate: Raw error rate under the control; may exceed 1.
        answers: The first answers, word for word.
    """

    name: str
    title: str
    score: Estimate
    gain: Estimate
    removes_medium: bool
    error_rate: float
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True)
class Row:
    """Everything measured for one task.

    Attributes:
        task: Name of the task.
        title: What it asks, in words.
        metric: "exact", "CER" or "WER": what the error rate counts.
        n: Samples.
        score: 1 - error rate, not below 0, with its 95% interval.
        error_rate: Raw error rate.
        aim: Score aimed at; None where none is set.
        controls: One entry a control; empty for text tasks.
        extras: Further figures of the same answers; no bar applies to them.
        answers: The first answers, word for word.
        wrong: The first wrong answers, word for word.
        seconds: Wall time of the whole row, controls included.
        answer_tokens: Tokens generated for the task as it is.
    """

    task: str
    title: str
    metric: str
    n: int
    score: Estimate
    error_rate: float
    aim: float | None
    controls: tuple[ControlResult, ...]
    extras: tuple[ExtraResult, ...]
    answers: tuple[Answer, ...]
    wrong: tuple[Answer, ...]
    seconds: float
    answer_tokens: int

    @property
    def blind(self) -> ControlResult | None:
        """The blind control that is hardest to beat; None for text."""
        blinds = [c for c in self.controls if c.removes_medium]
        return min(blinds, key=lambda c: c.gain.value) if blinds else None

    @property
    def needs_its_media(self) -> bool:
        """True when the score is 30 points above every blind control and the interval excludes zero."""
        blinds = [c.gain for c in self.controls if c.removes_medium]
        return all(gain.value >= 0.30 and gain.excludes_zero for gain in blinds)


@dataclass(frozen=True)
class Settings:
    """How to run.

    Attributes:
        n: Samples a task.
        batch: Requests handed to the model at once.
        controls: False leaves the controls out: quicker, but then a media score proves little.
    """

    n: int = 300
    batch: int = 32
    controls: bool = True

    def __post_init__(self) -> None:
        if self.n < 1 or self.batch < 1:
            raise InvalidRequest(f"n and batch must be at least 1, got n={self.n}, batch={self.batch}")


@dataclass(frozen=True)
class Progress:
    """Passed to the callback after each batch."""

    task: str
    condition: str
    done: int
    total: int


Listener = Callable[[Progress], None]


@dataclass
class _Runner:
    """One evaluation in progress: the model, the settings, and how many answers are in."""

    model: Answerer
    settings: Settings
    total: int
    listener: Listener
    done: int = field(default=0)

    def answers(self, task: Task, samples: Sequence[Sample], control: Control | None) -> list[Completion]:
        """Answers of one condition, in the order of the samples."""
        sampling = SamplingParams(max_new_tokens=task.max_new_tokens)
        adapters = control.adapters if control else None
        found: list[Completion] = []
        for start in range(0, len(samples), self.settings.batch):
            part = samples[start : start + self.settings.batch]
            found += self.model.generate(
                [Request(s.messages, s.tools, sampling, adapters=adapters) for s in part]
            )
            self.done += len(part)
            self.listener(Progress(task.name, control.name if control else "as it is", self.done, self.total))
        assert len(found) == len(samples), "a model must answer every request"
        return found

    def row(self, task: Task) -> Row:
        """All conditions of one task."""
        start = time.perf_counter()
        samples = task.samples(self.settings.n)
        completions = self.answers(task, samples, None)
        outcomes = judge(task, samples, completions)
        controls = tuple(self.control(task, c, samples, outcomes) for c in _controls(task, self.settings))
        answers = describe(samples, completions, outcomes)
        return Row(
            task=task.name,
            title=task.title,
            metric=task.metric,
            n=len(samples),
            score=score(outcomes),
            error_rate=error_rate(outcomes),
            aim=task.aim,
            controls=controls,
            extras=measure(task.extras, samples, completions, outcomes),
            answers=answers[:SHOWN],
            wrong=tuple(a for a in answers if not a.right)[:SHOWN],
            seconds=time.perf_counter() - start,
            answer_tokens=sum(c.usage.completion_tokens for c in completions),
        )

    def control(
        self, task: Task, control: Control, samples: Sequence[Sample], outcomes: Sequence[Outcome]
    ) -> ControlResult:
        """One control of one task; the right answers stay those of the untouched samples."""
        completions = self.answers(task, control.apply(samples), control)
        under = judge(task, samples, completions)
        return ControlResult(
            name=control.name,
            title=control.title,
            score=score(under),
            gain=difference(outcomes, under),
            removes_medium=control.removes_medium,
            error_rate=error_rate(under),
            answers=describe(samples, completions, under)[:SHOWN],
        )


def evaluate(
    model: Answerer,
    tasks: Sequence[Task],
    settings: Settings | None = None,
    listener: Listener = lambda _: None,
    finished: Callable[[Row], None] = lambda _: None,
) -> list[Row]:
    """Run tasks and return one row each.

    Args:
        model: Answers requests.
        tasks: What to run; see `phi4.evals.tasks.TASKS`.
        settings: Sample count, batch size, with or without controls.
        listener: Hears of every batch.
        finished: Gets every row as soon as it is whole.
    """
    settings = settings or Settings()
    total = settings.n * sum(1 + len(_controls(task, settings)) for task in tasks)
    runner = _Runner(model, settings, total, listener)
    rows = []
    for task in tasks:
        rows.append(runner.row(task))
        finished(rows[-1])
    return rows


def judge(task: Task, samples: Sequence[Sample], completions: Sequence[Completion]) -> list[Outcome]:
    """Outcomes of answers against the samples' right answers."""
    return [task.scorer(c, s.expected) for s, c in zip(samples, completions, strict=True)]


def describe(
    samples: Sequence[Sample], completions: Sequence[Completion], outcomes: Sequence[Outcome]
) -> tuple[Answer, ...]:
    """Answers as text beside what was expected."""
    return tuple(
        Answer(s.id, s.expected.shown, c.text or calls_as_text(c.tool_calls), o.right)
        for s, c, o in zip(samples, completions, outcomes, strict=True)
    )


def _controls(task: Task, settings: Settings) -> tuple[Control, ...]:
    return controls_for(task.media) if settings.controls else ()
