"""The trainer learns, resumes exactly, fits budgets, freezes parts and never applies a bad step."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from phi4.checkpoint import open_checkpoint, verify_manifest
from phi4.errors import TrainingError
from phi4.train import objectives, state
from phi4.train.counting import CountingSource
from phi4.train.feed import Feed
from phi4.train.objectives import Outcome, Trainee
from phi4.train.progress import read_metrics
from phi4.train.recipes import smoke
from phi4.train.run import build, model_config, row_source, run
from phi4.train.settings import GuardSettings, Recipe, Stage, TaskShare
from phi4.train.state import RunLock
from phi4.train.trainer import Trainer

CPU = torch.device("cpu")
RECIPE = replace(smoke(), save_every_s=1e9, log_every=4)


def trainer(
    folder: Path, recipe: Recipe = RECIPE, steps: int | None = 12, budget_s: float | None = None
) -> Trainer:
    config = model_config(recipe)
    source = row_source(recipe, config, folder)
    trainee = build(recipe, config, source, CPU)
    return Trainer(
        trainee,
        recipe,
        lambda stage, start: Feed(source, recipe, stage, start),
        folder,
        CPU,
        steps,
        budget_s,
        True,
    )


def weights(made: Trainer) -> dict[str, torch.Tensor]:
    return made.trainee.state_dict()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def stop_after(made: Trainer, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the run to stop once `step` steps are done."""
    real = made._one_step

    def counted(batches: object) -> None:
        real(batches)  # type: ignore[arg-type]
        if made._global_step == step:
            made.request_stop()

    monkeypatch.setattr(made, "_one_step", counted)


def test_loss_falls_on_every_task(tmp_path: Path) -> None:
    run(smoke(), tmp_path, quiet=True)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    for task in ("up", "again"):
        losses = [line["tasks"][task] for line in lines if task in line["tasks"]]
        assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("stop", [1, 5, 8, 11])
def test_run_stopped_and_resumed_equals_one_that_was_not(
    tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = replace(RECIPE.stages[0], share=1.0, accumulate=2)
    two = (first, replace(first, name="second", share=2.0, accumulate=3))
    recipe = replace(RECIPE, stages=two, replay=2, replay_delay=3)
    straight = trainer(tmp_path / "straight", recipe)
    straight.run()
    stopped = trainer(tmp_path / "stopped", recipe)
    stop_after(stopped, stop, monkeypatch)
    facts = stopped.run()
    assert not facts.finished and facts.steps == stop
    resumed = trainer(tmp_path / "stopped", recipe)
    assert resumed.run().finished
    assert same(weights(straight), weights(resumed))
    assert same(straight._guard.state(), resumed._guard.state())
    assert same(straight._optimizer.state(), resumed._optimizer.state())


def test_part_that_the_model_lacks_cannot_be_trained(tmp_path: Path) -> None:
    recipe = replace(RECIPE, stages=(Stage("see", RECIPE.stages[0].tasks, trainable=("vision-sft",)),))
    with pytest.raises(TrainingError, match=r"no parameters of part 'lora\.vision'"):
        trainer(tmp_path, recipe).run()


def test_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    first = trainer(tmp_path)
    first.run()
    again = trainer(tmp_path)
    assert again.run().steps == 12
    assert same(weights(first), weights(again))


def test_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path).run()
    with pytest.raises(TrainingError, match="another recipe"):
        trainer(tmp_path, replace(RECIPE, seed=7)).run()


def test_other_data_under_the_same_recipe_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(RECIPE, tmp_path, steps=6, quiet=True)
    monkeypatch.setattr("phi4.train.run.CountingSource", lambda: CountingSource(length=20))
    with pytest.raises(TrainingError, match="version of the data"):
        run(RECIPE, tmp_path, steps=6, quiet=True)


def test_refused_run_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    run(RECIPE, tmp_path, steps=6, quiet=True)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    with pytest.raises(TrainingError, match="another recipe"):
        run(replace(RECIPE, seed=7), tmp_path, quiet=True)
    with RunLock(tmp_path), pytest.raises(TrainingError, match="being trained"):
        run(RECIPE, tmp_path, quiet=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before


def test_run_with_a_budget_goes_on_with_it_when_none_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = trainer(tmp_path, steps=None, budget_s=3.0)
    stop_after(stopped, 4, monkeypatch)
    assert not stopped.run().finished
    facts = trainer(tmp_path, steps=None).run()
    assert facts.finished and facts.stage_steps == (facts.steps,)


def test_no_state_is_saved_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second checkpoint of one step would put the first, valid one at risk."""
    written: list[int] = []
    real = state.save

    def counted(folder: Path, snapshot: state.Snapshot, keep: int) -> Path:
        written.append(snapshot.step)
        return real(folder, snapshot, keep)

    monkeypatch.setattr(state, "save", counted)
    made = trainer(tmp_path, replace(RECIPE, save_every_s=0.0))
    stop_after(made, 5, monkeypatch)
    made.run()
    trainer(tmp_path, replace(RECIPE, save_every_s=0.0)).run()
    assert written == list(range(1, 13))


def test_budget_ends_the_run_near_its_time_with_a_decay(tmp_path: Path) -> None:
    facts = trainer(tmp_path, replace(RECIPE, log_every=2), steps=None, budget_s=3.0).run()
    assert facts.finished and facts.seconds < 9.0
    assert json.loads((tmp_path / "plan.json").read_text())["totals"] == [facts.steps]
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["lr_factor"] == pytest.approx(0.02)


@pytest.mark.parametrize("at", [0, 1, 5, 9])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_step_is_never_applied_and_the_run_goes_on(
    tmp_path: Path, at: int, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(tmp_path)
    real: Callable[..., Outcome] = objectives.outcome_of
    calls = 0
    before: dict[str, torch.Tensor] = {}
    after: dict[str, torch.Tensor] = {}

    def poisoned(task: TaskShare, trainee: Trainee, batch: object) -> Outcome:
        nonlocal calls
        outcome = real(task, trainee, batch)
        if calls == at:
            before.update({name: tensor.clone() for name, tensor in weights(made).items()})
            outcome = Outcome(outcome.loss * bad, outcome.metrics)
        elif calls == at + 1:
            after.update({name: tensor.clone() for name, tensor in weights(made).items()})
        calls += 1
        return outcome

    monkeypatch.setattr("phi4.train.trainer.outcome_of", poisoned)
    facts = made.run()
    assert facts.skipped == 1 and facts.steps == 12
    assert same(before, after)
    assert all(torch.isfinite(tensor).all() for tensor in weights(made).values())


def test_diverged_run_stops_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(tmp_path, replace(RECIPE, guard=GuardSettings(max_consecutive=3)))
    real = objectives.outcome_of
    monkeypatch.setattr(
        "phi4.train.trainer.outcome_of",
        lambda *given: Outcome(real(*given).loss * math.nan, {}),
    )
    with pytest.raises(TrainingError, match="in a row"):
        made.run()


def test_checkpoints_are_written_while_running_and_old_ones_go(tmp_path: Path) -> None:
    trainer(tmp_path, replace(RECIPE, save_every_s=0.0, keep=2)).run()
    assert len(state.checkpoints(tmp_path / "checkpoints")) == 2


def test_exported_model_is_complete_and_holds_the_trained_weights(tmp_path: Path) -> None:
    facts = run(RECIPE, tmp_path, steps=4, quiet=True)
    folder = tmp_path / "model"
    assert "model.safetensors" in verify_manifest(folder)
    checkpoint = open_checkpoint(folder)
    newest = state.load_newest(tmp_path / "checkpoints")
    assert newest is not None
    for name, tensor in newest.tensors["model"].items():
        stored = torch.from_numpy(checkpoint.read(name.removeprefix("model.")).astype("float32"))
        assert torch.equal(stored, tensor.bfloat16().float()), name
    card = json.loads((folder / "training.json").read_text())
    assert card["steps"] == facts.steps == 4 and card["rows"] == 32 and card["device"] == "cpu"


def test_used_folder_is_refused_when_not_resuming(tmp_path: Path) -> None:
    run(RECIPE, tmp_path, steps=2, quiet=True)
    with pytest.raises(TrainingError, match="already holds a run"):
        run(RECIPE, tmp_path, steps=2, quiet=True, resume=False)
