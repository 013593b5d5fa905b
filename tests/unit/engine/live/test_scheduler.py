"""What happens around a step: admission, room, failures of one request, crossings."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from phi4.configs.routing import AudioProjector
from phi4.engine.core import EngineCore
from phi4.engine.events import Event
from phi4.engine.runner import MediaHandle, StepPlan, StepResult
from phi4.engine.work import Work
from phi4.errors import InvalidRequest, OutOfMemory
from phi4.testing.mixes import RandomGrammar, answers_of
from phi4.testing.scripted import ScriptedRunner, babbling, saying
from phi4.types import AudioArrays, Completion, ImageArrays, ModelInputs, SamplingParams

VOCAB = 320
Text = Callable[..., ModelInputs]
MakeCore = Callable[..., tuple[EngineCore, ScriptedRunner]]


def work(inputs: ModelInputs, answer: int = 5, **more: Any) -> Work:
    return Work(inputs, SamplingParams(1.0, seed=3, max_new_tokens=answer), loop_guard=None, **more)


def run(core: EngineCore) -> list[Event]:
    events = []
    while core.busy:
        events += core.step()
    return events


def test_a_step_encodes_one_medium_and_decodes_beside_it(
    make_core: MakeCore, text: Text, shown: Text
) -> None:
    core, runner = make_core()
    talker = core.submit(work(text(3), 20))
    core.step()
    core.submit(work(shown("a", "b")))
    core.submit(work(shown("c", "d")))
    core.submit(work(shown("a", "d")))
    seen = []
    for _ in range(4):
        events = core.step()
        assert any(event.id == talker and event.delta is not None for event in events)
        seen.append((runner.num_handles, core.stats().running))
    assert seen == [(1, 1), (2, 2), (3, 2), (4, 4)]


def test_text_does_not_wait_for_pictures_before_it(make_core: MakeCore, text: Text, shown: Text) -> None:
    core, _ = make_core()
    core.submit(work(shown()))
    reader = core.submit(work(text(3), 1))
    assert [event.id for event in core.step() if event.ended] == [reader]


class FailingEncoder(ScriptedRunner):
    """Refuses the picture called "bad"."""

    def encode(self, media: ImageArrays | AudioArrays, projector: AudioProjector = "speech") -> MediaHandle:
        if media.digest == "bad":
            raise InvalidRequest("no such encoder")
        return super().encode(media, projector)


def test_a_medium_that_cannot_be_encoded_fails_its_request_alone(make_core: MakeCore, shown: Text) -> None:
    core, runner = make_core(runner=FailingEncoder(babbling(VOCAB), VOCAB))
    numbers = [core.submit(work(shown(picture))) for picture in ("good", "bad", "good")]
    events = run(core)
    failed = [event for event in events if event.error is not None]
    assert [event.id for event in failed] == [numbers[1]] and "no such encoder" in str(failed[0].error)
    assert sum(event.ended for event in events) == 3
    assert (runner.num_open, runner.num_handles, core.stats().failed) == (0, 0, 1)


class BrokenGrammar(RandomGrammar):
    """Fails at its third token, in one of its members."""

    def __init__(self, where: str) -> None:
        super().__init__(0, VOCAB, 10)
        self._where = where

    def allowed(self) -> Any:
        if self._left == 8 and self._where == "allowed":
            raise InvalidRequest("the grammar is too large")
        mask = super().allowed()
        return np.zeros_like(mask) if self._left == 8 and self._where == "nothing" else mask

    def accept(self, token_id: int) -> None:
        super().accept(token_id)
        if self._left == 7 and self._where == "accept":
            raise InvalidRequest("the grammar is too large")


@pytest.mark.parametrize(
    ("where", "says"), [("allowed", "too large"), ("accept", "too large"), ("nothing", "allows no token")]
)
def test_a_grammar_that_fails_fails_its_request_alone(
    make_core: MakeCore, text: Text, where: str, says: str
) -> None:
    core, runner = make_core()
    alone = answers_of(core, [work(text(3))])[0]
    bad = core.submit(work(text(4), grammar=BrokenGrammar(where)))
    core.submit(work(text(3)))
    events = run(core)
    assert [(event.id, says in str(event.error)) for event in events if event.error] == [(bad, True)]
    (done,) = (e.delta.completion for e in events if e.delta is not None and e.delta.completion is not None)
    assert isinstance(alone, Completion) and done.token_ids == alone.token_ids
    assert runner.num_open == 0


def test_a_request_too_large_for_the_machine_fails_when_nothing_else_runs(
    make_core: MakeCore, text: Text
) -> None:
    core, runner = make_core(capacity_tokens=30)
    small, large = core.submit(work(text(3), 9)), core.submit(work(text(30), 9))
    after = core.submit(work(text(4), 2))
    events = run(core)
    ended = [(event.id, isinstance(event.error, OutOfMemory)) for event in events if event.ended]
    assert ended == [(small, False), (large, True), (after, False)]
    assert runner.num_open == 0


def test_kept_sequences_make_room_before_anybody_waits(make_core: MakeCore, text: Text) -> None:
    core, _ = make_core(capacity_tokens=40, engine={"prefix_positions": 40})
    answers_of(core, [work(text(12, seed), 2) for seed in range(2)])
    assert core.stats().kept == 2
    core.submit(work(text(20, 9), 10))
    core.step()
    stats = core.stats()
    assert (stats.running, stats.waiting) == (1, 0) and stats.kept < 2
    run(core)


class Cramped(ScriptedRunner):
    """Finds no room in steps of more rows than `most`, after computing them."""

    most = 8

    def step(self, plan: StepPlan) -> StepResult:
        result = super().step(plan)
        if len(plan.rows) > self.most:
            raise OutOfMemory("no work space")
        return result


def test_a_step_without_room_first_takes_what_is_kept_then_halves_the_rows(
    make_core: MakeCore, text: Text
) -> None:
    works = [work(text(6, seed), 6) for seed in range(4)]
    expected = answers_of(make_core()[0], works)
    runner = Cramped(babbling(VOCAB), VOCAB)
    core, _ = make_core(runner=runner, engine={"prefix_positions": 100})
    answers_of(core, [work(text(9, 77))])
    assert core.stats().kept == 1
    runner.most = 2
    for each in works:
        core.submit(each)
    core.step()
    assert (core.stats().kept, core.stats().waiting, core.stats().preemptions) == (0, 4, 4)
    core.step()
    assert core.stats().preemptions == 8
    found = [event.delta.completion for event in run(core) if event.delta is not None and event.ended]
    assert sorted(done.token_ids for done in found if done is not None) == sorted(
        done.token_ids for done in expected if isinstance(done, Completion)
    )


class FewOutputs(ScriptedRunner):
    """Has room for two encoder outputs."""

    def encode(self, media: Any, projector: AudioProjector = "speech") -> MediaHandle:
        if self.num_handles >= 2:
            raise OutOfMemory("no room for outputs")
        return super().encode(media, projector)


def test_encoder_outputs_nobody_uses_make_room_for_others(make_core: MakeCore, shown: Text) -> None:
    core, runner = make_core(runner=FewOutputs(babbling(VOCAB), VOCAB), engine={"encoder_tokens": 100})
    for media in (("a", "b"), ("c", "d")):
        answers_of(core, [work(shown(*media))])
        assert runner.num_handles == 2


def test_waiting_requests_give_their_media_up_to_the_one_before_them(
    make_core: MakeCore, shown: Text
) -> None:
    core, runner = make_core(runner=FewOutputs(babbling(VOCAB), VOCAB))
    numbers = [core.submit(work(shown(*media))) for media in (("a", "b"), ("c", "d"), ("a", "e"))]
    events = run(core)
    assert [event.id for event in events if event.ended] == numbers
    assert not any(event.error for event in events)
    assert runner.num_handles == 0


def test_a_crossing_shows_as_progress_and_starves_nobody(make_core: MakeCore, text: Text) -> None:
    core, _ = make_core(boundary=16, max_step_tokens=4)
    crosser = core.submit(work(text(14), 8))
    other = core.submit(work(text(3, 5), 12))
    events: list[list[Event]] = []
    while core.busy:
        events.append(core.step())
    told = [e.progress for step in events for e in step if e.id == crosser and e.progress]
    again = [progress for progress in told if progress.again]
    assert again and [progress.fed for progress in again] == sorted(progress.fed for progress in again)
    assert all(progress.total == 17 for progress in again)
    spoken = [n for n, step in enumerate(events) if any(e.id == other and e.delta for e in step)]
    assert max(b - a for a, b in itertools.pairwise(spoken)) == 1
    assert core.stats().rope_crossings == 1


def test_prompts_that_begin_alike_are_computed_once(make_core: MakeCore, text: Text) -> None:
    core, runner = make_core(max_step_tokens=64)
    same = text(40).token_ids
    rows = [ModelInputs(np.concatenate([same, [seed]])) for seed in range(4)]
    expected = [answers_of(make_core()[0], [work(row, 3)])[0] for row in rows]
    found = answers_of(core, [work(row, 3) for row in rows])
    assert [outcome(done) for done in found] == [outcome(done) for done in expected]
    fed = sum(row.num_positions - len(row.drafts) for plan in runner.plans for row in plan.rows)
    assert fed <= 41 + 3 * 3 + 4 * 2
    assert [done.usage.cached_tokens for done in found if isinstance(done, Completion)] == [0, 38, 38, 38]


def outcome(done: object) -> tuple[int, ...]:
    assert isinstance(done, Completion)
    return done.token_ids


def test_an_unforeseen_failure_of_a_step_leaves_a_scheduler_that_can_go_on(
    make_core: MakeCore, text: Text
) -> None:
    broken = [True]

    def logits(spec: Any, history: Sequence[int]) -> Any:
        if broken.pop() if broken else False:
            raise RuntimeError("a driver fell over")
        return babbling(VOCAB)(spec, history)

    core, runner = make_core(logits=logits)
    expected = answers_of(make_core()[0], [work(text(5)), work(text(6))])
    works = [core.submit(work(text(5))), core.submit(work(text(6)))]
    with pytest.raises(RuntimeError, match="driver"):
        core.step()
    assert (runner.num_open, core.stats().waiting) == (0, 2)
    done = {event.id: event.delta.completion for event in run(core) if event.delta is not None}
    assert [outcome(done[number]) for number in works] == [outcome(answer) for answer in expected]


def test_no_more_rows_run_than_the_runner_takes(make_core: MakeCore, text: Text) -> None:
    core, runner = make_core(logits=saying([5], 3, VOCAB), max_rows=2)
    for seed in range(5):
        core.submit(work(text(3, seed), 4))
    run(core)
    assert max(len(plan.rows) for plan in runner.plans) == 2
    assert core.stats().finished == {"length": 5}
