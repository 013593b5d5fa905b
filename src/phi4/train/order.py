"""Which data a step sees: pure functions of (seed, position), so that a run resumes exactly.

Positions count micro-batches from the start of a stage. Without replay, position m shows batch m.
With replay K every batch is shown K times, `replay_delay` fresh batches apart, and a fresh batch is
needed only at every K-th position. A task that is not replayed keeps its places in this order but gets
new samples at each. The task of a batch and its sample indices depend on the stage and the batch number
alone. Nothing here keeps state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from phi4.train.settings import Recipe, Stage, TaskShare


@dataclass(frozen=True)
class BatchSpec:
    """One micro-batch to prepare: which stage and batch number, which task, which samples of it."""

    stage: int
    number: int
    task: TaskShare
    indices: tuple[int, ...]


def _random(*key: int | str) -> np.random.Generator:
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


def task_of(stage: Stage, seed: int, stage_index: int, number: int) -> TaskShare:
    """The task of a batch: systematic sampling, so every window of the run follows the weights closely.

    Batch `number` takes the point `number * golden_ratio + offset` of the unit interval (a
    low-discrepancy sequence), cut into pieces as long as the weights.
    """
    offset = float(_random("mix", seed, stage_index).random())
    point = (offset + number * 0.6180339887498949) % 1.0
    weights = np.array([task.weight for task in stage.tasks])
    edges = np.cumsum(weights / weights.sum())
    return stage.tasks[min(int(np.searchsorted(edges, point, side="right")), len(stage.tasks) - 1)]


def batch_spec(recipe: Recipe, stage_index: int, number: int) -> BatchSpec:
    """What a batch from `batch_number` holds. Stages draw from disjoint ranges of sample indices."""
    place = number if number >= 0 else ~number
    task = _task_at(recipe, stage_index, place) if number < 0 else _task(recipe, stage_index, number)
    rows = task.rows or recipe.micro_batch
    first = (stage_index << 40) + place * rows
    return BatchSpec(stage_index, number, task, tuple(range(first, first + rows)))


def batch_number(recipe: Recipe, stage_index: int, position: int) -> int:
    """Which batch is shown at micro-batch `position` of a stage; below zero one that is shown only there."""
    task = _task_at(recipe, stage_index, position)
    return _replayed(recipe, position) if task.replay and recipe.replay > 1 else ~position


def last_position(recipe: Recipe, number: int) -> int:
    """The last position at which `batch_number` can give `number`; afterwards the batch may be dropped."""
    if number < 0:
        return ~number
    turns = recipe.replay - 1
    regular = (number + turns * recipe.replay_delay) * recipe.replay + turns
    ring_filled = turns * recipe.replay_delay * recipe.replay + turns
    return max(regular, ring_filled) if turns else number


def needed_batches(recipe: Recipe, stage_index: int, start: int) -> Iterator[int]:
    """Batch numbers in the order in which positions `start, start + 1, ...` first ask for them. Endless."""
    seen: dict[int, int] = {}
    position = start
    while True:
        number = batch_number(recipe, stage_index, position)
        if number not in seen:
            seen[number] = last_position(recipe, number)
            yield number
        position += 1
        if len(seen) > 4 * recipe.replay * recipe.replay_delay + 1024:
            seen = {known: last for known, last in seen.items() if last >= position}


def _replayed(recipe: Recipe, position: int) -> int:
    """The batch number whose turn it is at a position, if every task is replayed."""
    fresh, turn = divmod(position, recipe.replay)
    number = fresh - turn * recipe.replay_delay
    if number < 0:  # the ring is not full yet: spread the early repeats over what is there
        number = int(_random("early", recipe.seed, position).integers(0, fresh + 1))
    return number


def _task(recipe: Recipe, stage_index: int, number: int) -> TaskShare:
    return task_of(recipe.stages[stage_index], recipe.seed, stage_index, number)


def _task_at(recipe: Recipe, stage_index: int, position: int) -> TaskShare:
    return _task(recipe, stage_index, _replayed(recipe, position))
