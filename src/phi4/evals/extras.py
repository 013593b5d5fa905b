"""Further figures of a row: a part of its samples alone, or a second judgement of the same answers.

They say where a score comes from. The answers are those of the task as it is: nothing is asked again,
so an extra has no controls, no aim and no bar.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from phi4.data.world.sentences import HELD_OUT_EVERY
from phi4.evals.intervals import Estimate, error_rate, score
from phi4.evals.samples import Sample
from phi4.evals.scorers import Outcome, sum_answer
from phi4.types import Completion
from phi4.verify import check_call


@dataclass(frozen=True)
class Extra:
    """One further figure.

    Attributes:
        name: Short name.
        title: What it counts, in words.
        holds: Samples it is measured on.
        judge: Judges one of their answers; None = as the task does.
    """

    name: str
    title: str
    holds: Callable[[Sample], bool]
    judge: Callable[[Completion, Sample], Outcome] | None = None


@dataclass(frozen=True)
class ExtraResult:
    """An extra as measured.

    Attributes:
        name: Name of the extra.
        title: What it counts, in words.
        n: Samples it was measured on.
        score: 1 - error rate, not below 0, with its 95% interval.
        error_rate: Raw error rate.
    """

    name: str
    title: str
    n: int
    score: Estimate
    error_rate: float


def measure(
    extras: Sequence[Extra],
    samples: Sequence[Sample],
    completions: Sequence[Completion],
    outcomes: Sequence[Outcome],
) -> tuple[ExtraResult, ...]:
    """Results of the extras; one that no sample belongs to is left out.

    Args:
        extras: What to measure.
        samples: All samples of the task.
        completions: Their answers.
        outcomes: What the task's own scorer says of them.
    """
    results = []
    for extra in extras:
        judged = [
            outcome if extra.judge is None else extra.judge(completion, sample)
            for sample, completion, outcome in zip(samples, completions, outcomes, strict=True)
            if extra.holds(sample)
        ]
        if judged:
            results.append(
                ExtraResult(extra.name, extra.title, len(judged), score(judged), error_rate(judged))
            )
    return tuple(results)


def _of_held_out_template(sample: Sample) -> bool:
    number = sample.facts.get("template")
    return isinstance(number, int) and number % HELD_OUT_EVERY == 0


def _calls_that_run(completion: Completion, sample: Sample) -> Outcome:
    calls = completion.tool_calls
    return Outcome(int(not calls or any(check_call(call, sample.tools) for call in calls)), 1)


UNSEEN_TEMPLATES = Extra(
    "unseen templates", "sentences of the templates that training never uses", _of_held_out_template
)
UNSEEN_DIALECT = Extra(
    "unseen dialect",
    "recordings in the dialect that training never hears",
    lambda sample: bool(sample.facts.get("held_out_dialect")),
)
CALL_RUNS = Extra(
    "call can be run",
    "where a call is due: calls of offered tools with arguments that fit, right or not",
    lambda sample: bool(sample.expected.tool_calls),
    _calls_that_run,
)
ANSWER_RIGHT = Extra(
    "answer right",
    "the number in the answer line, whatever the steps before it",
    lambda sample: True,
    lambda completion, sample: sum_answer(completion, sample.expected),
)
