"""Steps of a stage: split by share, or fitted to a budget and then never changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from phi4.errors import TrainingError
from phi4.train.clock import Clock, Plan, steps_within
from phi4.train.recipes import smoke
from phi4.train.settings import Stage, TaskShare

TASKS = (TaskShare("t"),)
STAGES = (Stage("a", TASKS, share=1.0, decay="none"), Stage("b", TASKS, share=3.0, decay_fraction=0.4))
RECIPE = replace(smoke(), stages=STAGES, steps=80)


def test_steps_are_split_by_share(tmp_path: Path) -> None:
    assert Plan.open(tmp_path / "p.json", RECIPE, None, None).totals == [20, 60]
    assert Plan.open(tmp_path / "q.json", RECIPE, 8, 60.0).totals == [2, 6]


def test_fixed_plan_and_its_budget_outlive_the_process(tmp_path: Path) -> None:
    plan = Plan.open(tmp_path / "p.json", RECIPE, None, 60.0)
    assert plan.totals == [None, None]
    plan.fix(0, 17)
    again = Plan.open(tmp_path / "p.json", RECIPE, None, None)
    assert (again.totals, again.budget_s) == ([17, None], 60.0)


def test_another_budget_moves_what_is_not_fixed_yet(tmp_path: Path) -> None:
    Plan.open(tmp_path / "p.json", RECIPE, None, 60.0).fix(0, 17)
    Plan.open(tmp_path / "p.json", RECIPE, None, 90.0)
    assert Plan.open(tmp_path / "p.json", RECIPE, None, None).budget_s == 90.0


def test_a_later_start_that_contradicts_the_plan_is_refused(tmp_path: Path) -> None:
    Plan.open(tmp_path / "p.json", RECIPE, 8, None)
    assert Plan.open(tmp_path / "p.json", RECIPE, 8, None).totals == [2, 6]
    for steps, budget_s in ((1000, None), (None, 60.0)):
        with pytest.raises(TrainingError, match=r"plans \[2, 6\] steps a stage"):
            Plan.open(tmp_path / "p.json", RECIPE, steps, budget_s)


def test_stage_with_decay_is_fixed_just_before_its_decay_begins() -> None:
    decided = [steps_within(STAGES[1], step, step * 1.0, 100.0, 1.0, 5) for step in range(0, 100, 5)]
    first = next(index for index, total in enumerate(decided) if total is not None)
    assert first * 5 == 55 and decided[first] == 100


def test_stage_without_decay_is_fixed_just_before_its_end() -> None:
    assert steps_within(STAGES[0], 90, 90.0, 100.0, 1.0, 5) is None
    assert steps_within(STAGES[0], 95, 95.0, 100.0, 1.0, 5) == 100
    assert steps_within(STAGES[0], 130, 130.0, 100.0, 1.0, 5) == 131, "an overdrawn budget ends the stage"


def test_budget_is_shared_among_what_is_left() -> None:
    clock = Clock(budget_s=400.0, elapsed_before_s=160.0)
    clock.start_stage(60.0)
    assert clock.stage_budget_s(RECIPE, 0) == pytest.approx(75.0, abs=0.5)  # (400 - 100) / 4
    assert clock.stage_budget_s(RECIPE, 1) == pytest.approx(300.0, abs=0.5)
