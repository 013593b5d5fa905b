"""Which sequences run in the next step, how far, and what happens around that step.

`Scheduler` holds the requests of one engine in flight: waiting ones are admitted while there is room,
running ones share steps as `RunnerInfo` allows, finished and cancelled ones give everything back. It
holds no tensors and no policy of its own beyond order: least recently served first, decoding rows before
prompt chunks. What goes wrong with one request ends that request and no other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from phi4.configs.rope import Regime
from phi4.engine.events import Event
from phi4.engine.live.batching import RowLimit, choose, whole_pairs
from phi4.engine.live.encoder_cache import EncoderCache
from phi4.engine.live.prefix_cache import PrefixCache
from phi4.engine.live.sequence import LiveSequence
from phi4.engine.longrope import LongRopePolicy
from phi4.engine.runner import ModelRunner, Row, RowResult, StepPlan
from phi4.engine.stats import Counters
from phi4.errors import OutOfMemory, Phi4Error


class Scheduler:
    """Requests in flight on one runner.

    Args:
        runner: Where they run.
        policy: LongRoPE policy of all of them.
        prefixes: Opens and closes their sequences.
        encoders: Encodes their media.
    """

    def __init__(
        self, runner: ModelRunner, policy: LongRopePolicy, prefixes: PrefixCache, encoders: EncoderCache
    ) -> None:
        self._runner = runner
        self._policy = policy
        self._prefixes = prefixes
        self._encoders = encoders
        self._waiting: deque[LiveSequence] = deque()
        self._running: list[LiveSequence] = []
        self._limit = RowLimit(runner.info.max_rows, runner.info.max_rows)
        self._read_last = False
        self.counters = Counters()

    @property
    def num_waiting(self) -> int:
        """Requests without a cache."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Requests with one."""
        return len(self._running)

    def add(self, sequence: LiveSequence) -> None:
        """Queue a sequence."""
        self._waiting.append(sequence)

    def cancel(self, sequence: LiveSequence) -> None:
        """Forget a sequence, waiting, running or done, and free what the runner holds for it."""
        self._waiting = deque(other for other in self._waiting if other is not sequence)
        self._running = [other for other in self._running if other is not sequence]
        self._close(sequence)
        sequence.release(self._encoders)

    def step(self) -> list[Event]:
        """Run one step: at most one medium through its encoder, then one step of the runner.

        Returns:
            What became visible.
        """
        events = self._admit()
        planned = self._plan(events)
        if not planned:
            return events
        try:
            result = self._runner.step(StepPlan(tuple(row for _, row in planned)))
        except OutOfMemory as error:
            return events + self._without_room(error)
        except BaseException:
            self._requeue()  # what was in the plan may only be closed now
            raise
        self._limit.went_well()
        self._read_last = any(row.num_positions > 1 and not row.drafts for _, row in planned)
        for (sequence, row), answer in zip(planned, result.rows, strict=True):
            sequence.last_step = self.counters.steps
            events.append(self._account(sequence, row, answer))
        self.counters.steps += 1
        self._cross()
        return events

    def _admit(self) -> list[Event]:
        """Let waiting sequences in, first come, first served, while rows and memory last."""
        events: list[Event] = []
        encoding = True  # one medium a step: those who read on wait no longer than that
        for sequence in list(self._waiting):
            if len(self._running) >= self._limit.rows:
                break
            try:
                encoding = self._encode(sequence, encoding)
                if sequence.next_medium is None and self._open(sequence):
                    self._waiting.remove(sequence)
                    self._running.append(sequence)
            except OutOfMemory as error:
                if self._running:
                    break  # room comes back when a running sequence ends
                events.append(self._fail(sequence, error))
            except Phi4Error as error:
                events.append(self._fail(sequence, error))
        return events

    def _encode(self, sequence: LiveSequence, may_run: bool) -> bool:
        """Give a sequence its media as far as encoders have seen them; returns whether one may still run."""
        while (medium := sequence.next_medium) is not None:
            if not self._encoders.holds(medium, sequence.projector, sequence.salt):
                if not may_run:
                    break
                may_run = False
            self._with_room(sequence, lambda: sequence.encode_next(self._encoders))
        return may_run

    def _open(self, sequence: LiveSequence) -> bool:
        """Open a cache, with as much of it copied as may be; False = a longer beginning is being computed."""
        regime = self._regime(sequence)
        names, most = sequence.names(regime, sequence.target_length), whole_pairs(sequence.most_copied)
        found = self._prefixes.match(names, most)
        if found.promised > found.length:
            return False
        spec, first = sequence.spec(regime), sequence.copied is None
        self._with_room(sequence, lambda: sequence.begin(self._prefixes.open(spec, names, most)))
        self.counters.prompt_tokens += sequence.prompt_length if first else 0
        return True

    def _with_room(self, sequence: LiveSequence, action: Callable[[], None]) -> None:
        """Do something that takes memory; without room, first take what nobody needs, least dear first.

        Raises:
            OutOfMemory: There is no room even so.
        """
        while True:
            try:
                action()
                return
            except OutOfMemory:
                if not (self._prefixes.evict() or self._encoders.evict() or self._take_media(sequence)):
                    raise

    def _take_media(self, sequence: LiveSequence) -> bool:
        """Where nothing runs, take the encoder outputs of the others that wait; False = there were none."""
        others = [other for other in self._waiting if other is not sequence and other.handles]
        if self._running or not others:
            return False
        for other in others:
            other.release(self._encoders)
        self._encoders.evict_all()
        return True

    def _plan(self, events: list[Event]) -> list[tuple[LiveSequence, Row]]:
        """The rows of a step, with guesses of what follows, as many as runner, budget and regime allow."""
        info = self._runner.info
        chosen = choose(self._running, info, self._read_last) if self._running else []
        together = info.verifies_drafts_in_batch and info.mixes_prefill_decode
        left = info.max_step_tokens - sum(count for _, count in chosen)
        planned: list[tuple[LiveSequence, Row]] = []
        for sequence, count in chosen:
            try:
                drafts = self._drafts(sequence, left) if together or len(chosen) == 1 else ()
                planned.append((sequence, sequence.row(count, drafts)))
            except Phi4Error as error:
                events.append(self._fail(sequence, error))
            else:
                left -= len(drafts)
        return planned

    def _drafts(self, sequence: LiveSequence, most: int) -> tuple[int, ...]:
        drafts = sequence.guess(most) if most else ()
        # Each guess is drawn after under the factors of the whole step: none may lie beyond a change.
        while drafts and self._regime(sequence, len(drafts)) != sequence.regime:
            drafts = drafts[:-1]
        return drafts

    def _account(self, sequence: LiveSequence, row: Row, answer: RowResult) -> Event:
        """What a row that ran means for its sequence."""
        self.counters.generation_tokens += len(answer.token_ids)
        self.counters.drafted += len(row.drafts)
        self.counters.accepted += len(answer.token_ids) - 1 if row.drafts else 0
        try:
            event = sequence.advance(row, answer)
        except Phi4Error as error:
            return self._fail(sequence, error)
        if event.ended:
            self._running.remove(sequence)
            self._leave(sequence)
            sequence.release(self._encoders)
            completion = event.delta.completion if event.delta is not None else None
            self.counters.ended("stop" if completion is None else completion.finish_reason)
        return event

    def _fail(self, sequence: LiveSequence, error: Phi4Error) -> Event:
        self.cancel(sequence)
        self.counters.failed += 1
        return Event(sequence.id, error=error)

    def _without_room(self, error: OutOfMemory) -> list[Event]:
        """After a step without room: all begin anew, with kept sequences gone or half as many at once.

        Draws depend on seed and position alone, so no answer changes.
        """
        if not self._prefixes.evict_all():
            if len(self._running) == 1:
                return [self._fail(self._running[0], error)]
            self._limit.halve(len(self._running))
        self.counters.preemptions += len(self._running)
        self._requeue()
        return []

    def _requeue(self) -> None:
        """Take all caches back; what ran waits again, before what has not run yet."""
        for sequence in reversed(self._running):
            self._close(sequence)
            self._waiting.appendleft(sequence)
        self._running = []

    def _cross(self) -> None:
        """Rebuild the caches of sequences whose regime changed: everything is fed again, media included."""
        for sequence in list(self._running):
            if self._regime(sequence) != sequence.regime:
                sequence.clock.rope_crossings += 1
                self.counters.rope_crossings += 1
                self._leave(sequence)
                self._running.remove(sequence)
                self._waiting.appendleft(sequence)

    def _regime(self, sequence: LiveSequence, more: int = 0) -> Regime:
        return self._policy.regime(sequence.rope_length + more, sequence.final_length)

    def _leave(self, sequence: LiveSequence) -> None:
        """Its cache may serve others now."""
        cache, sequence.cache = sequence.cache, None
        if cache is not None:
            self._prefixes.leave(cache, sequence.names(cache.spec.regime, cache.length))

    def _close(self, sequence: LiveSequence) -> None:
        cache, sequence.cache = sequence.cache, None
        if cache is not None:
            self._prefixes.close(cache)
