"""Which sequences run in the next step, how far, and what happens around that step.

`Scheduler` holds the requests of one generator in flight: waiting ones are admitted while the runner
has room, running ones share steps as `RunnerInfo` allows, finished and cancelled ones give everything
back. It holds no tensors and no policy of its own beyond order: least recently served first, decoding
rows before prompt chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from phi4.configs.rope import Regime
from phi4.engine.longrope import LongRopePolicy
from phi4.engine.runner import ModelRunner, Row, RunnerInfo, StepPlan
from phi4.engine.sequence import LiveSequence
from phi4.errors import OutOfMemory
from phi4.types import Delta


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


class Scheduler:
    """Requests in flight on one runner.

    Args:
        runner: Where they run.
        policy: LongRoPE policy of all of them.
    """

    def __init__(self, runner: ModelRunner, policy: LongRopePolicy) -> None:
        self._runner = runner
        self._policy = policy
        self._waiting: deque[LiveSequence] = deque()
        self._running: list[LiveSequence] = []
        self._most_rows = runner.info.max_rows
        self._num_steps = 0

    @property
    def busy(self) -> bool:
        """Whether anything is waiting or running."""
        return bool(self._waiting or self._running)

    def add(self, sequence: LiveSequence) -> None:
        """Queue a sequence."""
        self._waiting.append(sequence)

    def cancel(self, sequence: LiveSequence) -> None:
        """Forget a sequence, waiting, running or done, and free what the runner holds for it."""
        self._waiting = deque(other for other in self._waiting if other is not sequence)
        self._running = [other for other in self._running if other is not sequence]
        sequence.close(self._runner)

    def close(self) -> None:
        """Cancel everything."""
        for sequence in [*self._waiting, *self._running]:
            self.cancel(sequence)

    def step(self) -> list[tuple[LiveSequence, Delta]]:
        """Run one step; returns what became visible, by sequence.

        Raises:
            OutOfMemory: Not even one sequence fits.
        """
        self._admit()
        if not self._running:
            return []
        chosen = choose(self._running, self._runner.info)
        plan = StepPlan(tuple(self._rows(chosen)))
        try:
            result = self._runner.step(plan)
        except OutOfMemory:
            if len(self._running) == 1:
                raise
            self._preempt()
            return []
        seen: list[tuple[LiveSequence, Delta]] = []
        for (sequence, _), row, answer in zip(chosen, plan.rows, result.rows, strict=True):
            sequence.last_step = self._num_steps
            delta = sequence.advance(row, answer)
            if delta is not None:
                seen.append((sequence, delta))
            if sequence.done:
                self.cancel(sequence)
        self._num_steps += 1
        self._cross()
        return seen

    def _rows(self, chosen: Sequence[tuple[LiveSequence, int]]) -> Iterator[Row]:
        """The rows of a step, with guesses of what follows, as many as runner, budget and regime allow."""
        info = self._runner.info
        together = info.verifies_drafts_in_batch and info.mixes_prefill_decode
        left = info.max_step_tokens - sum(count for _, count in chosen)
        for sequence, count in chosen:
            drafts = sequence.guess(left) if left and (together or len(chosen) == 1) else ()
            # Each guess is drawn after under the factors of the whole step: none may lie beyond a change.
            while drafts and self._regime_after(sequence, len(drafts)) != sequence.regime:
                drafts = drafts[:-1]
            left -= len(drafts)
            yield sequence.row(count, drafts)

    def _regime_after(self, sequence: LiveSequence, more: int) -> Regime:
        return self._policy.regime(sequence.rope_length + more, sequence.final_length)

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._most_rows:
            sequence = self._waiting[0]
            try:
                sequence.encode(self._runner)
                sequence.open(self._runner, self._policy.regime(sequence.rope_length, sequence.final_length))
            except OutOfMemory:
                if not self._running:
                    raise
                return  # room comes back when a running sequence ends
            self._running.append(self._waiting.popleft())

    def _preempt(self) -> None:
        """After a step without room: all begin anew, from now on half as many at once.

        Draws depend on seed and position alone, so no answer changes.
        """
        self._most_rows = len(self._running) // 2
        for sequence in reversed(self._running):
            sequence.close_slot(self._runner)
            self._waiting.appendleft(sequence)
        self._running = []

    def _cross(self) -> None:
        """Rebuild the caches of sequences whose regime changed: everything is fed again, media included."""
        for sequence in list(self._running):
            regime = self._policy.regime(sequence.rope_length, sequence.final_length)
            if regime != sequence.regime:
                sequence.clock.rope_crossings += 1
                sequence.close_slot(self._runner)
                self._running.remove(sequence)
                self._waiting.appendleft(sequence)
