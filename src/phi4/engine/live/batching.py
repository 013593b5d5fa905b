"""Which rows share the next step, and how many sequences may run at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from phi4.engine.live.sequence import LiveSequence
from phi4.engine.runner import RunnerInfo

CALM_STEPS = 1000
"""Steps without trouble after which one row more is tried: a try that fails computes all prompts anew."""

_PAIR = 2
"""Kernels take positions two at a time, and one alone in another way: no chunk leaves one position over, so
that how a prompt is cut changes nothing in the last bits of its keys and values."""


def choose(
    running: Sequence[LiveSequence], info: RunnerInfo, read_last: bool = False
) -> list[tuple[LiveSequence, int]]:
    """Pick the rows of a step and how many positions each feeds.

    The least recently served sequence takes part; others join it where `info` lets them. Where prompts and
    answers cannot share a step they take turns, however many of each there are: between two chunks of
    prompts every answer goes on by a token.

    Args:
        running: At least one sequence.
        info: What the runner can do.
        read_last: The last step was a chunk of a prompt.
    """
    order = sorted(running, key=lambda sequence: sequence.last_step)
    if not info.mixes_prefill_decode:
        reading, writing = _parted(order)
        order = writing if writing and (read_last or not reading) else reading[:1]
    if not info.mixes_adapters:
        order = [sequence for sequence in order if sequence.adapters == order[0].adapters]
    order = order[: info.max_rows]
    left = info.max_step_tokens
    chosen: list[tuple[LiveSequence, int]] = []
    for sequence in sorted(order, key=lambda sequence: sequence.pending > 1):  # stable: decoding rows first
        count = min(sequence.pending, left)
        if sequence.pending - count == 1 and count > _PAIR:
            count -= _PAIR
        if count:
            chosen.append((sequence, count))
            left -= count
    return chosen


def whole_pairs(positions: int) -> int:
    """Pairs of positions within so many, but one: what is left to feed is no single position either."""
    return max(0, (positions - 1) // _PAIR * _PAIR)


def _parted(order: Sequence[LiveSequence]) -> tuple[list[LiveSequence], list[LiveSequence]]:
    """Those that read a prompt, and those that lack one position and draw from it."""
    reading = [sequence for sequence in order if sequence.pending > 1]
    return reading, [sequence for sequence in order if sequence.pending == 1]


@dataclass
class RowLimit:
    """How many sequences run at once: halved when a step finds no room, raised again by calm.

    Attributes:
        most: What the runner takes.
        rows: What is tried now.
        calm: Steps since the last change that found room.
    """

    most: int
    rows: int
    calm: int = 0

    def halve(self, running: int) -> None:
        """A step of some of `running` sequences found no room."""
        self.rows, self.calm = max(1, running // 2), 0

    def went_well(self) -> None:
        """A step found room."""
        self.calm += 1
        if self.rows < self.most and self.calm >= CALM_STEPS:
            self.rows, self.calm = self.rows + 1, 0
