"""The guard throws away bad steps, keeps good ones and is not poisoned by what it threw away."""

from __future__ import annotations

import math

import pytest
import torch

from phi4.errors import TrainingError
from phi4.train.guard import Guard
from phi4.train.settings import GuardSettings


def feed(guard: Guard, steps: int, task: int = 0, seed: int = 0) -> list[bool]:
    """Realistic good steps: loss and norm wander by some percent around a slow fall."""
    generator = torch.Generator().manual_seed(seed)
    verdicts = []
    for step in range(steps):
        noise = torch.randn(2, generator=generator) * 0.1
        loss = 3.0 * math.exp(-step / 200) * (1 + noise[0])
        verdicts.append(bool(guard.judge(task, loss, 2.0 * (1 + noise[1]))))
    return verdicts


def guard(tasks: int = 1, **changes: float) -> Guard:
    return Guard(GuardSettings(**changes), tasks, torch.device("cpu"))  # type: ignore[arg-type]


def test_good_steps_are_never_skipped() -> None:
    assert all(feed(guard(), 600))


@pytest.mark.parametrize("at", [0, 1, 5, 63, 64, 100])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_step_that_is_not_finite_is_skipped_at_any_time(at: int, bad: float) -> None:
    watch = guard()
    feed(watch, at)
    assert not watch.judge(0, torch.tensor(bad), torch.tensor(2.0))
    assert not watch.judge(0, torch.tensor(3.0), torch.tensor(bad))
    assert watch.check() == 2


@pytest.mark.parametrize("at", [5, 63, 64, 100])
def test_hundredfold_norm_or_loss_is_skipped_and_the_next_good_step_is_not(at: int) -> None:
    watch = guard()
    feed(watch, at)
    assert not watch.judge(0, torch.tensor(3.0), torch.tensor(200.0))
    assert not watch.judge(0, torch.tensor(300.0), torch.tensor(2.0))
    assert all(feed(watch, 100))
    assert watch.check() == 2


def test_first_step_has_only_the_absolute_limit() -> None:
    assert not guard(norm_limit=100.0).judge(0, torch.tensor(3.0), torch.tensor(101.0))
    assert guard(norm_limit=100.0).judge(0, torch.tensor(3.0), torch.tensor(99.0))


def test_tasks_have_windows_of_their_own() -> None:
    watch = guard(tasks=2)
    feed(watch, 100, task=0)
    assert watch.judge(1, torch.tensor(60.0), torch.tensor(90.0)), "another task may have another scale"
    assert not watch.judge(0, torch.tensor(60.0), torch.tensor(90.0))


def test_bad_step_does_not_change_what_follows_and_state_goes_out_and_in() -> None:
    watch, other = guard(), guard()
    feed(watch, 70)
    other.load_state({name: tensor.clone() for name, tensor in watch.state().items()})
    watch.judge(0, torch.tensor(math.nan), torch.tensor(math.nan))
    assert feed(watch, 80, seed=3) == feed(other, 80, seed=3)
    assert torch.equal(watch.norms, other.norms) and torch.equal(watch.counts, other.counts)


def test_too_many_bad_steps_in_a_row_stop_the_run() -> None:
    watch = guard(max_consecutive=3)
    for _ in range(2):
        watch.judge(0, torch.tensor(math.nan), torch.tensor(1.0))
    assert watch.check() == 2
    watch.judge(0, torch.tensor(math.nan), torch.tensor(1.0))
    with pytest.raises(TrainingError, match="3 steps in a row"):
        watch.check()
