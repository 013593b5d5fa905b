"""The trainer: a loop over stages and steps that knows no task, no model part and no loss.

It asks the feed for micro-batches, the objective for a loss, the guard for a verdict and the
optimiser for an update; it logs every few steps and saves every few minutes. Everything that decides
the numbers is in the checkpoint or a pure function of (seed, step), so a run that is killed and
resumed ends in the same bytes as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from phi4.errors import TrainingError
from phi4.train import state
from phi4.train.batch import TrainBatch, tensor_batch
from phi4.train.clock import Clock, Plan, steps_within
from phi4.train.feed import Ahead, Feed
from phi4.train.guard import Guard
from phi4.train.meter import Meter
from phi4.train.objectives import Trainee, outcome_of
from phi4.train.optim import Optimizer, learning_rate_factor
from phi4.train.order import BatchSpec
from phi4.train.phases import freeze, trainable_names
from phi4.train.progress import Reporter
from phi4.train.settings import Recipe

LOG_AT_LEAST_EVERY_S = 15.0
STEPS_BEFORE_PLANNING = 3

FeedFactory = Callable[[int, int], Feed]
"""(stage, first micro-batch position) to a feed."""


@dataclass(frozen=True)
class Facts:
    """What a run did, for the model card.

    Attributes:
        finished: False when it was asked to stop before its end.
        steps, rows, tokens: Done in the whole run.
        stage_steps: Planned steps of each stage; None = not decided yet.
        seconds: Wall time of the whole run, all processes together; what a killed one did after its last
            checkpoint is done again and counted once.
        skipped: Steps the guard threw away in the last stage.
    """

    finished: bool
    steps: int
    stage_steps: tuple[int | None, ...]
    rows: int
    tokens: int
    seconds: float
    skipped: int


class Trainer:
    """One run.

    Args:
        trainee: Model and heads, on `device`, with initial weights.
        recipe: What to do.
        feeds: Makes the feed of a stage.
        folder: Run folder, which the caller has locked; created when missing.
        device: Where to train.
        steps: Steps of the whole run; None = the recipe's, or as many as fit `budget_s`.
        budget_s: Wall time of the whole run in seconds; None = what the run was started with.
        quiet: Nothing on the terminal.
        identity: What besides the recipe decides the numbers; a run resumes under the same one only.
    """

    def __init__(
        self,
        trainee: Trainee,
        recipe: Recipe,
        feeds: FeedFactory,
        folder: Path,
        device: torch.device,
        steps: int | None = None,
        budget_s: float | None = None,
        quiet: bool = False,
        identity: str = "",
    ) -> None:
        self.trainee, self.recipe, self.folder, self.device = trainee, recipe, folder, device
        self._feeds, self._steps, self._quiet = feeds, steps, quiet
        self._identity = f"{recipe.digest()} {identity}"
        self._clock = Clock(budget_s)
        self._stage = self._step = self._global_step = self._rows = self._tokens = 0
        self._carried: dict[str, Tensor] = {}
        self._resumed_guard: dict[str, Tensor] | None = None
        self._stop_requested = False
        self._optimizer: Optimizer
        self._guard: Guard
        self._plan: Plan
        self._reporter: Reporter
        self._saved_at, self._saved = time.monotonic(), (0, 0)
        self._window: Meter

    def request_stop(self) -> None:
        """Finish the present step, save and return; safe to call from a signal handler."""
        self._stop_requested = True

    def run(self) -> Facts:
        """Train to the end, or until `request_stop`.

        Raises:
            TrainingError: No checkpoint in the folder is valid, it belongs to another recipe or other
                data, its plan contradicts the arguments, or too many steps in a row went wrong.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        self._reporter = Reporter(self.folder, self._global_step, self._quiet)
        try:
            if self._global_step:
                self._reporter.say(f"going on from step {self._global_step}")
            while self._stage < len(self.recipe.stages) and not self._stop_requested:
                self._run_stage()
            skipped = self._guard.check() if hasattr(self, "_guard") else 0
        finally:
            self._reporter.close()
        finished = self._stage >= len(self.recipe.stages)
        planned, seconds = tuple(self._plan.totals), self._clock.elapsed_s
        return Facts(finished, self._global_step, planned, self._rows, self._tokens, seconds, skipped)

    def _resume(self) -> None:
        checkpoints = self.folder / "checkpoints"
        state.clean(checkpoints)
        self._plan = Plan.open(self.folder / "plan.json", self.recipe, self._steps, self._clock.budget_s)
        self._clock.budget_s = self._plan.budget_s
        snapshot = state.load_newest(checkpoints)
        if snapshot is None:
            torch.manual_seed(self.recipe.seed)
            return
        facts = snapshot.facts
        if facts["identity"] != self._identity:
            raise TrainingError(
                f"{self.folder} holds a run of another recipe, model, tokenizer or version of the data; "
                "choose another folder"
            )
        with torch.no_grad():
            self.trainee.load_state_dict(dict(snapshot.tensors["model"]))
        optimizer = dict(snapshot.tensors["optimizer"])
        state.restore_random_state(optimizer, facts["rng"])
        self._resumed_guard = {key: value for key, value in optimizer.items() if key.startswith("guard.")}
        self._carried = optimizer
        self._stage, self._step, self._global_step = facts["stage"], facts["step"], snapshot.step
        self._rows, self._tokens = facts["rows"], facts["tokens"]
        self._clock.elapsed_before_s = facts["elapsed_s"]
        self._clock.stage_before_s = facts["stage_s"]
        self._saved = self._global_step, self._stage

    def _run_stage(self) -> None:
        stage = self.recipe.stages[self._stage]
        canonical = self.trainee.canonical()
        full = {name.removeprefix("model."): name for name, _ in self.trainee.named_parameters()}
        names = [full[name] for name in trainable_names(canonical, stage.trainable)]
        freeze(self.trainee, names)
        muon_dtype = torch.bfloat16 if self.recipe.precision == "bf16" else torch.float32
        self._optimizer = Optimizer(self.trainee, names, self.recipe.optim, muon_dtype)
        self._optimizer.load_state(self._carried)
        self._guard = Guard(self.recipe.guard, len(stage.tasks), self.device)
        if self._resumed_guard is not None and self._step:
            self._guard.load_state(self._resumed_guard)
        self._clock.start_stage(self._clock.stage_before_s if self._step else 0.0)
        feed = self._feeds(self._stage, self._step * stage.accumulate)
        ahead = Ahead(self._tensors(feed), depth=2)
        try:
            self._loop(cast("Iterator[tuple[BatchSpec, TrainBatch]]", ahead))
        finally:
            ahead.close()
            feed.close()

    def _tensors(self, feed: Feed) -> Iterator[tuple[BatchSpec, TrainBatch]]:
        pin = self.device.type == "cuda"
        context = self.trainee.model.config.decoder.original_max_position_embeddings
        for spec, arrays in feed:
            yield spec, tensor_batch(arrays, pin, context)

    def _loop(self, batches: Iterator[tuple[BatchSpec, TrainBatch]]) -> None:
        self._window = Meter(len(self.recipe.stages[self._stage].tasks), self.device)
        self.trainee.train()
        while not self._stage_done() and not self._stop_requested:
            self._one_step(batches)
            self._fix_total()
            due = self._step % self.recipe.log_every == 0 or self._window.age_s > LOG_AT_LEAST_EVERY_S
            if due or self._stage_done():
                self._log()
            if time.monotonic() - self._saved_at > self.recipe.save_every_s and not self._stage_done():
                self._save()
        if self._stage_done():
            self._carried = {name: t.detach() for name, t in self._optimizer.state().items()}
            self._stage, self._step = self._stage + 1, 0
            self._clock.stage_before_s = 0.0
        self._save()

    def _stage_done(self) -> bool:
        total = self._plan.totals[self._stage]
        return total is not None and self._step >= total

    def _one_step(self, batches: Iterator[tuple[BatchSpec, TrainBatch]]) -> None:
        stage = self.recipe.stages[self._stage]
        self._optimizer.zero_grad()
        losses, row = [], 0
        for micro in range(stage.accumulate):
            waited = time.monotonic()
            spec, batch = next(batches)
            self._window.waited_s += time.monotonic() - waited
            batch = batch.to(self.device)
            with self._autocast():
                outcome = outcome_of(spec.task, self.trainee, batch)
            torch.autograd.backward(outcome.loss / stage.accumulate)
            task = stage.tasks.index(spec.task)
            row = task if micro == 0 and stage.accumulate == 1 else 0
            losses.append(outcome.loss.detach())
            self._window.add(task, outcome.loss, outcome.metrics, batch)
            self._rows += batch.num_rows
            self._tokens += batch.num_tokens
        norm = self._optimizer.gradient_norm()
        keep = self._guard.judge(row, torch.stack(losses).mean(), norm)
        factor = learning_rate_factor(stage, self._step, self._plan.totals[self._stage])
        self._optimizer.step(factor, norm, keep)
        self._window.norm = norm
        self._window.steps += 1
        self._step += 1
        self._global_step += 1

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.recipe.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _log(self) -> None:
        stage, recipe = self.recipe.stages[self._stage], self.recipe
        window, self._window = self._window, Meter(len(stage.tasks), self.device)
        values = window.numbers([task.task for task in stage.tasks])
        seconds = time.monotonic() - window.started
        step_s = seconds / max(1, window.steps)
        total = self._plan.totals[self._stage]
        self._reporter.log(
            {
                "step": self._global_step,
                "total_steps": None if total is None else self._global_step - self._step + total,
                "stage": stage.name,
                **values,
                "lr_factor": learning_rate_factor(stage, self._step - 1, total),
                "skipped": self._guard.check(),
                "tokens_per_s": window.tokens / seconds,
                "rows_per_s": window.rows / seconds,
                "waiting": window.waited_s / seconds,
                "elapsed_s": self._clock.elapsed_s,
                "left_s": self._left_s(step_s),
                "rows": self._rows,
                "micro_batch": recipe.micro_batch,
            }
        )

    def _fix_total(self) -> None:
        open_end = self._clock.budget_s is not None and self._plan.totals[self._stage] is None
        if not open_end or self._step < STEPS_BEFORE_PLANNING:
            return
        budget = self._clock.stage_budget_s(self.recipe, self._stage)
        stage, stage_s = self.recipe.stages[self._stage], self._clock.stage_s
        total = steps_within(stage, self._step, stage_s, budget, stage_s / self._step, margin=1)
        if total is not None:
            self._plan.fix(self._stage, total)
            self._reporter.say(f"stage {stage.name}: {total} steps fit the time budget")

    def _left_s(self, step_s: float) -> float | None:
        if self._clock.budget_s is not None:
            return max(0.0, self._clock.budget_s - self._clock.elapsed_s)
        totals = [total for total in self._plan.totals[self._stage :] if total is not None]
        return step_s * (sum(totals) - self._step)

    def _save(self) -> None:
        """Write a checkpoint, unless this very state is written: a valid one is never replaced."""
        if self._saved == (self._global_step, self._stage):
            return
        rng_tensors, rng_facts = state.random_state()
        optimizer = {**self._carried, **self._optimizer.state(), **self._guard.state(), **rng_tensors}
        facts = {
            "identity": self._identity,
            "stage": self._stage,
            "step": self._step,
            "rows": self._rows,
            "tokens": self._tokens,
            "elapsed_s": self._clock.elapsed_s,
            "stage_s": self._clock.stage_s if self._step else 0.0,
            "rng": rng_facts,
        }
        tensors = {"model": self.trainee.state_dict(), "optimizer": optimizer}
        state.save(
            self.folder / "checkpoints", state.Snapshot(self._global_step, tensors, facts), self.recipe.keep
        )
        self._saved_at, self._saved = time.monotonic(), (self._global_step, self._stage)
