"""Which cells a model gets, by its context and its encoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from phi4.bench.report import Group
from phi4.bench.speeds import (
    RECORDING_S,
    STEPS,
    Sample,
    Subject,
    decode,
    encode_picture,
    encode_recording,
    prefill,
)
from phi4.types import Modality

PROMPTS = (128, 512, 2048)
ROWS = (1, 2, 4, 8)
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
        after: Positions each of them holds.
    """

    group: Group
    name: str
    unit: str
    more_is_better: bool
    prepare: Callable[[Subject], AbstractContextManager[Sample]]
    rows: int = 0
    after: int = 0


def tasks_for(context: int, modalities: Sequence[Modality], max_rows: int) -> list[Task]:
    """Cells in the order they are measured.

    Args:
        context: The smallest context of the runners, in tokens.
        modalities: What all runners can encode.
        max_rows: The fewest rows of a step one of them takes.
    """
    found = [_prefill(count) for count in PROMPTS if count < context]
    after = min(AFTER, context - STEPS - 1)
    found += [_decode(rows, after) for rows in ROWS if rows <= max_rows and after > 0]
    if "vision" in modalities:
        found.append(Task("encoders", "vision, a crop", "ms", False, encode_picture))
    if "speech" in modalities:
        name = f"speech, {RECORDING_S:.0f} s of sound"
        found.append(Task("encoders", name, "ms", False, encode_recording))
    return found


def longest_prompt(context: int) -> int:
    """Tokens of the longest prompt that is measured."""
    return max((count for count in (FIRST_PROMPT, *PROMPTS) if count < context), default=1)


def _prefill(count: int) -> Task:
    name = f"prompt of {count:,} tokens"
    return Task("prompt", name, "tokens/s", True, lambda subject: prefill(subject, count))


def _decode(rows: int, after: int) -> Task:
    name = f"answer after {after:,}, {rows} row{'s' if rows > 1 else ''}"
    return Task(
        "answer", name, "tokens/s", True, lambda subject: decode(subject, rows, after), rows=rows, after=after
    )
