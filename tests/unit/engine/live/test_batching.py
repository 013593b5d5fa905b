"""Which sequences share a step, by what a runner says it can do, and how many run at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from phi4.engine.live.batching import CALM_STEPS, RowLimit, choose, whole_pairs
from phi4.engine.live.scoring import Scoring
from phi4.engine.runner import RunnerInfo
from phi4.types import ModelInputs

INFO = RunnerInfo(
    name="test",
    device="none",
    dtype="float32",
    attention="none",
    vocab_size=10,
    max_context_tokens=1000,
    bytes_per_token=1,
    max_rows=8,
    max_step_tokens=100,
)


def sequence(number: int, pending: int, last_step: int = 0, adapters: tuple[str, ...] = ()) -> Scoring:
    made = Scoring(number, ModelInputs(np.zeros(pending, np.int64)), adapters, "speech", [1])
    made.last_step = last_step
    assert made.pending == pending
    return made


def chosen(sequences: list[Scoring], read_last: bool = False, **abilities: object) -> list[tuple[int, int]]:
    picked = choose(sequences, replace(INFO, **abilities), read_last)  # type: ignore[arg-type]
    return [(sequence.id, count) for sequence, count in picked]


def test_everything_shares_a_step_when_it_may_and_decoding_rows_come_first() -> None:
    assert chosen([sequence(0, 50), sequence(1, 1), sequence(2, 9)]) == [(1, 1), (0, 50), (2, 9)]


def test_the_budget_cuts_prompts_into_chunks_but_never_holds_up_decoding() -> None:
    rows = [sequence(0, 50), sequence(1, 60), sequence(2, 1)]
    assert chosen(rows, max_step_tokens=70) == [(2, 1), (0, 50), (1, 19)]
    assert chosen(rows, max_step_tokens=30) == [(2, 1), (0, 29)]


def test_the_least_recently_served_takes_part() -> None:
    rows = [sequence(0, 1, last_step=5), sequence(1, 1, last_step=3), sequence(2, 1, last_step=4)]
    assert chosen(rows, max_rows=2) == [(1, 1), (2, 1)]


def test_other_adapters_wait_where_they_cannot_be_mixed() -> None:
    rows = [
        sequence(0, 1, 2, ("vision",)),
        sequence(1, 1, 1),
        sequence(2, 4, 3),
        sequence(3, 1, 9, ("vision",)),
    ]
    assert chosen(rows, mixes_adapters=False) == [(1, 1), (2, 4)]


def test_a_prompt_comes_alone_where_it_cannot_share_a_step_with_decoding() -> None:
    rows = [sequence(0, 7, last_step=1), sequence(1, 1, last_step=2), sequence(2, 1, last_step=3)]
    assert chosen(rows, mixes_prefill_decode=False) == [(0, 7)]
    assert chosen(rows, read_last=True, mixes_prefill_decode=False) == [(1, 1), (2, 1)]
    assert chosen(rows[:1], read_last=True, mixes_prefill_decode=False) == [(0, 7)]
    assert chosen(rows[1:], mixes_prefill_decode=False) == [(1, 1), (2, 1)]


def test_between_two_chunks_of_prompts_every_answer_goes_on_however_many_prompts_there_are() -> None:
    reading = [sequence(number, 50, last_step=-1) for number in range(6)]
    writing = sequence(6, 1, last_step=9)
    read_last, steps = False, []
    for step in range(10, 22):
        ((served, _),) = choose([*reading, writing], replace(INFO, mixes_prefill_decode=False), read_last)
        served.last_step, read_last = step, served is not writing
        steps.append(served.id)
    assert steps == [0, 6, 1, 6, 2, 6, 3, 6, 4, 6, 5, 6]


def test_no_chunk_leaves_one_position_over() -> None:
    assert chosen([sequence(0, 101)]) == [(0, 98)]
    assert chosen([sequence(0, 102)]) == [(0, 100)]
    assert chosen([sequence(0, 3)], max_step_tokens=2) == [(0, 2)]
    assert [whole_pairs(most) for most in (0, 1, 2, 3, 39, 40)] == [0, 0, 0, 2, 38, 38]


def test_trouble_halves_the_rows_and_long_calm_raises_them_by_one() -> None:
    limit = RowLimit(8, 8)
    limit.halve(5)
    assert limit.rows == 2
    limit.halve(1)
    assert limit.rows == 1
    for _ in range(CALM_STEPS - 1):
        limit.went_well()
    assert limit.rows == 1
    limit.went_well()
    assert limit.rows == 2
    for _ in range(20 * CALM_STEPS):
        limit.went_well()
    assert limit.rows == 8
