"""What is timed is what it says: so many tokens, so many rows, all of it given back."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from phi4.bench.speeds import Subject, decode, encode_picture, encode_recording, prefill
from phi4.engine.runner import Draw, Nothing, SequenceSpec
from phi4.errors import OutOfMemory
from phi4.testing.scripted import ScriptedRunner, babbling
from phi4.testing.tiny import tiny_config

STEPS = 5


def scripted(**limits: Any) -> tuple[Subject, ScriptedRunner]:
    """A subject whose runner keeps account of everything asked of it."""
    runner = ScriptedRunner(babbling(320), 320, **limits)
    model = SimpleNamespace(
        generator=SimpleNamespace(runner=runner),
        config=tiny_config(original_max=256),
        tokenizer=SimpleNamespace(vocab_size=320),
    )
    return Subject("scripted", model), runner  # type: ignore[arg-type]


def fed(runner: ScriptedRunner) -> list[int]:
    return [sum(row.num_positions for row in plan.rows) for plan in runner.plans]


def test_prompt_goes_in_chunks_and_only_the_last_draws() -> None:
    subject, runner = scripted(max_step_tokens=64)
    with prefill(subject, 150) as sample:
        assert sample() > 0
        assert fed(runner) == [64, 64, 22] and runner.num_open == 0
        sample()
    wants = [type(plan.rows[0].want) for plan in runner.plans]
    assert wants == [Nothing, Nothing, Draw] * 2


def test_every_sample_reads_the_same_tokens() -> None:
    subject, _ = scripted()
    first, second = subject.token_ids(100), subject.token_ids(100)
    assert np.array_equal(first, second) and len(set(first.tolist())) > 10
    assert first.min() >= 0 and first.max() < 320


@pytest.mark.parametrize(("num_tokens", "regime"), [(100, "short"), (255, "short"), (256, "long")])
def test_regime_is_the_one_the_whole_sequence_has(num_tokens: int, regime: str) -> None:
    subject, runner = scripted()
    with prefill(subject, num_tokens) as sample:
        sample()
    assert runner.opened == [SequenceSpec((), regime, num_tokens + 1)]  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [1, 4])
def test_decoding_advances_all_rows_from_one_prompt_by_the_same_length(rows: int) -> None:
    subject, runner = scripted()
    with decode(subject, rows, after=40, steps=STEPS) as sample:
        assert fed(runner) == [40] and runner.num_open == rows
        for _ in range(2):
            runner.plans.clear()
            assert sample() > 0
            assert fed(runner) == [rows] * (STEPS + 1)  # one step before the clock starts
            assert {runner.length(row.slot) for row in runner.plans[0].rows} == {40 + STEPS + 1}
    assert runner.num_open == 0


def test_tokens_that_are_drawn_are_fed_back() -> None:
    subject, runner = scripted()
    with decode(subject, 2, after=8, steps=STEPS) as sample:
        sample()
        drawn: Sequence[Any] = [plan.rows[0].pieces[0] for plan in runner.plans[1:]]
    assert len({int(piece.token_ids[0]) for piece in drawn}) > 1


def test_rows_there_is_no_room_for_leave_none_open() -> None:
    subject, runner = scripted(capacity_tokens=100)
    with pytest.raises(OutOfMemory), decode(subject, 8, after=20, steps=STEPS):
        pass
    assert runner.num_open == 0


def test_encoders_are_warm_and_give_their_outputs_back() -> None:
    subject, runner = scripted()
    for encode in (encode_picture, encode_recording):
        with encode(subject) as sample:
            assert sample() > 0
        assert runner.num_handles == 0


def test_real_runners_give_a_rate_for_everything(subject: Subject) -> None:
    for prepared in (
        prefill(subject, 64),
        decode(subject, 3, after=16, steps=2),
        encode_picture(subject),
        encode_recording(subject),
    ):
        with prepared as sample:
            assert sample() > 0
    assert subject.runner.num_open == subject.runner.num_handles == 0  # type: ignore[attr-defined]
