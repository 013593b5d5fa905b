"""Property: submit, step and cancel in any order: nothing leaks, and every request ends as it does alone."""

from __future__ import annotations

import tempfile
from functools import cache
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from phi4.engine.core import EngineCore
from phi4.engine.events import Event
from phi4.engine.longrope import longrope_policy
from phi4.engine.runner import StepPlan, StepResult
from phi4.errors import OutOfMemory
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.testing.mixes import Outcome, Pool, answers_of, mixed_works, outcome
from phi4.testing.scripted import ScriptedRunner, babbling
from phi4.testing.tiny import tiny_config, write_tiny_tokenizer
from phi4.types import AudioArrays, ImageArrays

VOCAB = 320
POOL = Pool(
    VOCAB,
    images=(
        ImageArrays(np.zeros((1, 3, 2, 2), np.float32), np.ones((1, 1, 1), np.bool_), (2, 2), 5, "picture"),
    ),
    audios=(AudioArrays(np.zeros((8, 80), np.float32), 3, 0.1, "voice"),),
    longest_text=16,
    longest_answer=8,
)
MOST_STEPS = 600
"""Far more than the few requests of one run can need: who has not ended by then never will."""


@cache
def tokenizer() -> Phi4Tokenizer:
    with tempfile.TemporaryDirectory() as directory:
        return write_tiny_tokenizer(directory, vocab_size=VOCAB)


def engine(runner: ScriptedRunner, **options: Any) -> EngineCore:
    policy = longrope_policy("reference", tiny_config(original_max=16, max_positions=64).decoder)
    return EngineCore(runner, tokenizer(), policy=policy, **options)


class Moody(ScriptedRunner):
    """Now and then finds no work space in a step of several rows, after computing it."""

    mood = 0

    def step(self, plan: StepPlan) -> StepResult:
        result = super().step(plan)
        self.mood = (self.mood * 5 + 3) % 64
        if len(plan.rows) > 1 and self.mood % 7 == 0:
            raise OutOfMemory("no work space today")
        return result


@cache
def alone(seed: int) -> Outcome:
    core = engine(ScriptedRunner(babbling(VOCAB), VOCAB), speculate=False)
    return outcome(answers_of(core, mixed_works(seed, POOL, 1))[0])


class EngineMachine(RuleBasedStateMachine):
    """An engine and who has asked it for what."""

    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[int, int] = {}
        self.gone: set[int] = set()

    @initialize(
        rows=st.integers(1, 4),
        tokens=st.integers(1, 20),
        mixes=st.booleans(),
        room=st.sampled_from([None, 40, 100]),
        kept=st.sampled_from([0, 60]),
        outputs=st.sampled_from([0, 6]),
    )
    def begin(self, rows: int, tokens: int, mixes: bool, room: int | None, kept: int, outputs: int) -> None:
        self.runner = Moody(
            babbling(VOCAB),
            VOCAB,
            capacity_tokens=room,
            max_rows=rows,
            max_step_tokens=tokens,
            mixes_adapters=mixes,
            mixes_prefill_decode=mixes,
            verifies_drafts_in_batch=mixes,
        )
        self.core = engine(self.runner, prefix_positions=kept, encoder_tokens=outputs, prefix_block=4)

    @rule(target=requests, seed=st.integers(0, 300))
    def submit(self, seed: int) -> int:
        number = self.core.submit(mixed_works(seed, POOL, 1)[0])
        self.asked[number] = seed
        return number

    @rule(number=consumes(requests))
    def cancel(self, number: int) -> None:
        self.core.cancel(number)
        self.asked.pop(number, None)
        self.gone.add(number)

    @rule(count=st.integers(1, 6))
    def steps(self, count: int) -> None:
        for _ in range(count):
            for event in self.core.step():
                self.judge(event)

    def judge(self, event: Event) -> None:
        assert event.id not in self.gone, "an event after the last one, or of a cancelled request"
        assert event.error is None, event.error
        if event.ended:
            answer = event.scores or (event.delta.completion if event.delta is not None else None)
            assert answer is not None
            assert outcome(answer) == alone(self.asked.pop(event.id))
            self.gone.add(event.id)

    @invariant()
    def nothing_is_held_for_nobody(self) -> None:
        stats = self.core.stats()
        assert stats.running + stats.waiting == len(self.asked)
        assert self.runner.num_open == stats.running + stats.kept
        if not self.asked:
            assert self.runner.num_handles <= 2, "no more outputs are kept than six tokens"

    def teardown(self) -> None:
        if not hasattr(self, "core"):
            return
        for _ in range(MOST_STEPS):
            if not self.core.busy:
                break
            self.steps(1)
        assert not self.asked, "a request never ended"
        self.core.close()
        assert (self.runner.num_open, self.runner.num_handles) == (0, 0)


TestEngineMachine = EngineMachine.TestCase
TestEngineMachine.settings = settings(max_examples=60, stateful_step_count=20)
