"""How many steps a stage has: given, or derived from a time budget once and then fixed for good.

With a budget, a stage starts without a known end. Its pace is measured while the learning rate is
constant; just before the decay must begin the number of steps is fixed and written to `plan.json`,
so a run that is killed and resumed afterwards follows the same schedule bit for bit. The budget
stands there too: a run goes on with its own when none is given.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from phi4.errors import TrainingError
from phi4.train.settings import Recipe, Stage
from phi4.train.state import write_json


@dataclass
class Plan:
    """Steps of every stage, or the time they must fit into.

    Attributes:
        path: `plan.json` of the run.
        totals: Per stage; None = not fixed yet.
        budget_s: Wall time of the whole run; None = the steps were given.
    """

    path: Path
    totals: list[int | None]
    budget_s: float | None = None

    @classmethod
    def open(cls, path: Path, recipe: Recipe, steps: int | None, budget_s: float | None) -> Plan:
        """The plan of a former start, else a new one: `steps` split by the stages' shares, or a budget.

        Args:
            path: `plan.json`.
            recipe: Gives shares and, without `steps` and budget, the number of steps.
            steps: Steps of the whole run; wins over a budget.
            budget_s: Wall time of the whole run. On a former plan it takes the place of the budget there
                and moves the stages that are not fixed yet.

        Raises:
            TrainingError: A former plan has other steps, or steps where a budget is given.
        """
        whole = sum(stage.share for stage in recipe.stages)
        wanted = recipe.steps if steps is None else steps
        totals: list[int | None] = [max(1, round(wanted * stage.share / whole)) for stage in recipe.stages]
        fresh = cls(path, totals)
        if budget_s is not None and steps is None:
            fresh = cls(path, [None] * len(totals), budget_s)
        if path.exists():
            fresh = cls(path, **json.loads(path.read_text(encoding="utf-8")))._updated(
                totals if steps is not None else None, budget_s
            )
        fresh.write()
        return fresh

    def _updated(self, totals: list[int | None] | None, budget_s: float | None) -> Plan:
        """This plan with what a later start asked for."""
        if totals is not None and totals != self.totals:
            raise TrainingError(
                f"{self.path} plans {self.totals} steps a stage, not {totals}; leave the number of steps "
                "away to go on, or choose another folder"
            )
        if totals is None and budget_s is not None:
            if self.budget_s is None:
                raise TrainingError(
                    f"{self.path} plans {self.totals} steps a stage, so a time cannot change it; leave the "
                    "time away to go on, or choose another folder"
                )
            self.budget_s = budget_s
        return self

    def fix(self, stage: int, total: int) -> None:
        """Decide the steps of a stage and make it durable before any step depends on it."""
        self.totals[stage] = total
        self.write()

    def write(self) -> None:
        """Write the file atomically."""
        write_json(self.path, {"totals": self.totals, "budget_s": self.budget_s})


@dataclass
class Clock:
    """Training time, going on across resumes.

    Attributes:
        budget_s: Wall time of the whole run; None = no budget.
        elapsed_before_s: Time spent by earlier processes of this run.
        stage_before_s: The part of it spent in the present stage.
    """

    budget_s: float | None
    elapsed_before_s: float = 0.0
    stage_before_s: float = 0.0
    _started: float = field(default_factory=time.monotonic)
    _stage_started: float = field(default_factory=time.monotonic)

    def start_stage(self, before_s: float) -> None:
        """A stage begins, or goes on after `before_s` seconds in earlier processes."""
        self.stage_before_s, self._stage_started = before_s, time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds of the whole run."""
        return self.elapsed_before_s + time.monotonic() - self._started

    @property
    def stage_s(self) -> float:
        """Seconds of the present stage."""
        return self.stage_before_s + time.monotonic() - self._stage_started

    def stage_budget_s(self, recipe: Recipe, stage: int) -> float:
        """What the budget leaves for a stage: its share of everything not spent before it began."""
        assert self.budget_s is not None
        before = self.elapsed_s - self.stage_s
        remaining = sum(entry.share for entry in recipe.stages[stage:])
        return (self.budget_s - before) * recipe.stages[stage].share / remaining


def steps_within(
    stage: Stage, step: int, stage_s: float, budget_s: float, step_s: float, margin: int
) -> int | None:
    """The number of steps to fix now, or None while it is too early to decide.

    Args:
        stage: For the length of its decay.
        step: Steps of the stage done so far.
        stage_s: Seconds it took so far.
        budget_s: Seconds it may take.
        step_s: Recent seconds per step.
        margin: Steps until the question is asked again.
    """
    total = step + max(0, int((budget_s - stage_s) / step_s))
    decay = stage.decay_fraction if stage.decay != "none" else 0.0
    decides = step + margin >= total - round(total * decay)
    return max(total, step + 1) if decides else None
