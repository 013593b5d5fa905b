"""Which cells a model gets, by what was asked for, its context and its encoders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from phi4.bench.report import Group
from phi4.bench.settings import Settings
from phi4.bench.speeds import (
    RECORDING_S,
    Sample,
    Subject,
    decode,
    encode_picture,
    encode_recording,
    prefill,
)
from phi4.types import Modality

AFTER = 512
"""Positions before decoding is timed."""
FIRST_PROMPT = 32
"""Tokens of the prompt of the first answer after loading."""


@dataclass(frozen=True)
class Task:
    """One row of the report, before it is measured.

    Attributes:
        group: See `Row`.
        name: See `Row`.
        unit: See `Row`.
        more_is_better: See `Row`.
        prepare: Makes a subject ready; its value takes a sample.
        rows: Sequences that decode together; 0 = not a decoding task.
        length: Positions each of them holds half-way through a sample.
    """

    group: Group
    name: str
    unit: str
    more_is_better: bool
    prepare: Callable[[Subject], AbstractContextManager[Sample]]
    rows: int = 0
    length: int = 0


def tasks_for(settings: Settings, context: int, modalities: Sequence[Modality], max_rows: int) -> list[Task]:
    """Cells in the order they are measured.

    Args:
        settings: Prompts, steps and rows that were asked for.
        context: The smallest context of the runners, in tokens.
        modalities: What all runners can encode.
        max_rows: The fewest rows of a step one of them takes.
    """
    found = [_prefill(count) for count in settings.prompts if count < context]
    after = min(AFTER, context - settings.steps - 1)
    if after > 0:
        found += [_decode(rows, after, settings.steps) for rows in settings.rows if rows <= max_rows]
    if "vision" in modalities:
        found.append(Task("encoders", "vision, a crop", "ms", False, encode_picture))
    if "speech" in modalities:
        name = f"speech, {RECORDING_S:.0f} s of sound"
        found.append(Task("encoders", name, "ms", False, encode_recording))
    return found


def left_out(settings: Settings, context: int, max_rows: int) -> Iterator[str]:
    """What was asked for and there is no room for, a sentence each."""
    for count in settings.prompts:
        if count >= context:
            yield f"prompt of {count:,} tokens left out: the context is {context:,}"
    if context - settings.steps < 2:
        yield f"answers left out: {settings.steps:,} tokens do not fit into the context of {context:,}"
    for rows in settings.rows:
        if rows > max_rows:
            yield f"{rows} rows left out: at most {max_rows} go into a step"


def longest_prompt(settings: Settings, context: int) -> int:
    """Tokens of the longest prompt that is measured."""
    return max((count for count in (FIRST_PROMPT, *settings.prompts) if count < context), default=1)


def _prefill(count: int) -> Task:
    name = f"prompt of {count:,} tokens"
    return Task("prompt", name, "tokens/s", True, lambda subject: prefill(subject, count))


def _decode(rows: int, after: int, steps: int) -> Task:
    return Task(
        "answer",
        f"answer after {after:,}, {rows} row{'s' if rows > 1 else ''}",
        "tokens/s",
        True,
        lambda subject: decode(subject, rows, after, steps),
        rows=rows,
        length=after + steps // 2,
    )
