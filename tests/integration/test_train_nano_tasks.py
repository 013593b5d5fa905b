"""Every task of the nano recipe, from generated records to falling losses in the nano model itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from phi4.train import sources
from phi4.train.batch import TrainBatch, tensor_batch
from phi4.train.collate import IGNORED, collate
from phi4.train.objectives import Trainee, outcome_of
from phi4.train.optim import Optimizer
from phi4.train.recipes import nano
from phi4.train.run import build, model_config, row_source
from phi4.train.settings import OptimSettings, TaskShare
from phi4.train.sources import WorldSource

RECIPE = nano()
TASKS = [
    pytest.param(stage, task, id=f"{stage.name}-{task.task}")
    for stage in RECIPE.stages
    for task in stage.tasks
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> WorldSource:
    patch = pytest.MonkeyPatch()
    patch.setattr(sources, "TOKENIZER_RECORDS", 40)
    made = row_source(RECIPE, model_config(RECIPE), tmp_path_factory.mktemp("run"))
    patch.undo()
    assert isinstance(made, WorldSource)
    return made


@pytest.fixture(scope="module")
def trainee(source: WorldSource) -> Trainee:
    return build(RECIPE, model_config(RECIPE), source, torch.device("cpu"))


def batch_of(source: WorldSource, task: TaskShare) -> TrainBatch:
    return tensor_batch(collate(source.rows(task, range(4)), source.pad_id))


@pytest.mark.parametrize(("stage", "task"), TASKS)
def test_loss_of_a_repeated_batch_falls(
    source: WorldSource, trainee: Trainee, stage: object, task: TaskShare
) -> None:
    batch = batch_of(source, task)
    assert bool((batch.targets != IGNORED).any())
    names = [name for name, _ in trainee.named_parameters()]
    optimizer = Optimizer(trainee, names, OptimSettings(lr=1e-3, muon_lr=0.0))
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        outcome = outcome_of(task, trainee, batch)
        outcome.loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step(1.0, optimizer.gradient_norm(), torch.tensor(True))
        losses.append(float(outcome.loss.detach()))
    assert losses[-1] < losses[0], losses


def test_recordings_come_with_transcripts_and_pictures_with_characters(source: WorldSource) -> None:
    for _, task in ((param.values[0], param.values[1]) for param in TASKS):
        if task.ctc_weight or task.objective == "ctc":
            assert all(length > 0 for length in batch_of(source, task).transcript_lengths), task
        if task.glyph_weight or task.objective == "glyphs":
            assert batch_of(source, task).glyphs is not None, task


def test_rows_are_a_pure_function_of_the_index(source: WorldSource, tmp_path: Path) -> None:
    for task in RECIPE.stages[1].tasks:
        first, again = source.rows(task, [3, 7]), source.rows(task, [7])
        assert first[1].inputs.token_ids.tolist() == again[0].inputs.token_ids.tolist()
        for one, other in zip(first[1].inputs.audios, again[0].inputs.audios, strict=True):
            assert one.digest == other.digest
        for one, other in zip(first[1].inputs.images, again[0].inputs.images, strict=True):
            assert one.digest == other.digest


def test_speech_input_is_normalised_by_the_data(source: WorldSource, trainee: Trainee) -> None:
    assert trainee.model.speech is not None
    task = next(task for stage in RECIPE.stages for task in stage.tasks if task.objective == "ctc")
    features = torch.cat(
        [torch.from_numpy(row.inputs.audios[0].features) for row in source.rows(task, range(32))]
    )
    normal = trainee.model.speech.encoder.encoder_embedding(features)
    assert abs(float(normal.mean())) < 0.1 and abs(float(normal.std()) - 1.0) < 0.1
