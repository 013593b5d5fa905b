"""Which rows share the next step, and how many sequences may run at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from phi4.engine.live.sequence import LiveSequence
from phi4.engine.runner import RunnerInfo

CALM_STEPS = 1000
"""Steps without trouble after which one row more is tried: a try that fails computes all prompts anew."""


def choose(running: Sequence[LiveSequence], info: RunnerInfo) -> list[tuple[LiveSequence, int]]:
    """Pick the rows of a step and how many positions each feeds.

    The least recently served sequence always takes part; others join it where `info` lets them.
    """
    order = sorted(running, key=lambda sequence: sequence.last_step)
    lead = order[0]
    if not info.mixes_adapters:
        order = [sequence for sequence in order if sequence.adapters == lead.adapters]
    if not info.mixes_prefill_decode:
        order = [lead] if lead.pending > 1 else [sequence for sequence in order if sequence.pending == 1]
    order = order[: info.max_rows]
    left = info.max_step_tokens
    chosen: list[tuple[LiveSequence, int]] = []
    for sequence in sorted(order, key=lambda sequence: sequence.pending > 1):  # stable: decoding rows first
        count = min(sequence.pending, left)
        if count:
            chosen.append((sequence, count))
            left -= count
    return chosen


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
