"""The data order is a pure function of (seed, position), follows the weights and replays exactly."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4.train.order import batch_number, batch_spec, last_position, needed_batches, task_of
from phi4.train.settings import Recipe, Stage, TaskShare

MIX = (TaskShare("a", 3.0), TaskShare("b", 1.0), TaskShare("c", 1.0, rows=4))
RECIPE = Recipe("r", "counting", (Stage("s", MIX), Stage("t", MIX)), micro_batch=2)


def test_every_window_of_the_run_follows_the_weights() -> None:
    for start in (0, 1_000, 77_777):
        counts = Counter(task_of(RECIPE.stages[0], 1, 0, number).task for number in range(start, start + 100))
        assert abs(counts["a"] - 60) <= 2
        assert abs(counts["b"] - 20) <= 2


def test_batch_depends_on_stage_and_number_alone() -> None:
    assert batch_spec(RECIPE, 0, 5) == batch_spec(RECIPE, 0, 5)
    first = {index for number in range(50) for index in batch_spec(RECIPE, 0, number).indices}
    second = {index for number in range(50) for index in batch_spec(RECIPE, 1, number).indices}
    assert not first & second, "stages must not repeat each other's samples"


def test_seed_changes_the_order_of_tasks() -> None:
    def order(seed: int) -> list[str]:
        return [task_of(RECIPE.stages[0], seed, 0, number).task for number in range(30)]

    assert order(1) != order(2)


def test_samples_of_a_task_are_never_drawn_twice_without_replay() -> None:
    seen: Counter[tuple[str, int]] = Counter()
    for position in range(300):
        spec = batch_spec(RECIPE, 0, batch_number(RECIPE, 0, position))
        seen.update((spec.task.task, index) for index in spec.indices)
    assert max(seen.values()) == 1


def test_task_may_have_its_own_number_of_rows() -> None:
    sizes = {
        batch_spec(RECIPE, 0, number).task.task: len(batch_spec(RECIPE, 0, number).indices)
        for number in range(20)
    }
    assert sizes == {"a": 2, "b": 2, "c": 4}


def test_replay_shows_every_batch_as_often_as_asked_once_the_ring_is_full() -> None:
    recipe = replace(RECIPE, replay=3, replay_delay=5)
    shown = Counter(batch_number(recipe, 0, position) for position in range(600))
    assert {shown[number] for number in range(20, 150)} == {3}
    apart = [position for position in range(600) if batch_number(recipe, 0, position) == 50]
    assert min(b - a for a, b in pairwise(apart)) >= 15


def test_a_task_without_replay_keeps_its_share_and_never_sees_a_sample_twice() -> None:
    mix = (TaskShare("dear", 1.0), TaskShare("cheap", 1.0, replay=False))
    recipe = replace(RECIPE, stages=(Stage("s", mix),), replay=3, replay_delay=5)
    specs = [batch_spec(recipe, 0, batch_number(recipe, 0, position)) for position in range(600)]
    assert Counter(spec.task.task for spec in specs)["cheap"] == pytest.approx(300, abs=15)
    shown = Counter((spec.task.task, index) for spec in specs for index in spec.indices)
    assert {count for (task, _), count in shown.items() if task == "cheap"} == {1}
    assert max(count for (task, _), count in shown.items() if task == "dear") >= 3


@settings(max_examples=30)
@given(replay=st.integers(1, 4), delay=st.integers(1, 9), start=st.integers(0, 400))
def test_feed_order_from_any_start_covers_every_position_and_drops_nothing_early(
    replay: int, delay: int, start: int
) -> None:
    mix = (*MIX, TaskShare("cheap", 1.0, replay=False))
    recipe = replace(RECIPE, stages=(Stage("s", mix),), replay=replay, replay_delay=delay)
    needed = list(islice(needed_batches(recipe, 0, start), 300))
    assert len(set(needed)) == len(needed)
    wanted = [batch_number(recipe, 0, position) for position in range(start, start + 100)]
    assert list(dict.fromkeys(wanted)) == needed[: len(set(wanted))]
    assert all(last_position(recipe, number) >= position for position, number in enumerate(wanted, start)), (
        "a batch would leave the ring before its last use"
    )
