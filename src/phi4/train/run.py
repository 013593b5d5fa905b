"""From a recipe to a trained, exported model: builds the parts, runs the trainer, writes the result."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from phi4.configs import NANO, Phi4Config, tiny_multimodal
from phi4.errors import TrainingError
from phi4.model import Phi4Model, init_weights
from phi4.train.counting import CountingSource
from phi4.train.export import export
from phi4.train.feed import Feed, RowSource
from phi4.train.objectives import Trainee
from phi4.train.settings import Recipe
from phi4.train.state import write_json
from phi4.train.trainer import Facts, Trainer

NORMALISATION_ROWS = 64
"""Recordings whose log-mel statistics normalise the speech encoder's input."""


def model_config(recipe: Recipe) -> Phi4Config:
    """The architecture a recipe names."""
    if recipe.model == "counting":
        return tiny_multimodal().with_layout("mini")
    if recipe.model == "nano":
        return NANO
    raise TrainingError(f"recipe {recipe.name!r} names an unknown model {recipe.model!r}")


def run(
    recipe: Recipe,
    out_dir: str | Path,
    device: str = "cpu",
    workers: int = 0,
    resume: bool = True,
    steps: int | None = None,
    minutes: float | None = None,
    quiet: bool = False,
    tokenizer_file: str | Path | None = None,
) -> Facts:
    """Train a recipe and export the result to `out_dir/model`.

    Args:
        recipe: For instance `recipes.nano("cuda")`.
        out_dir: Run folder: checkpoints, logs, the exported model.
        device: "cpu", "cuda", "cuda:1" ...
        workers: Processes that generate data; 0 = generate between steps.
        resume: Go on where a former run in this folder stopped; False = refuse a used folder.
        steps: Optimiser steps of the whole run; overrides the recipe.
        minutes: Wall time of the whole run, earlier parts included; the steps are fitted to it.
        quiet: No terminal output.
        tokenizer_file: A `tokenizer.json` to use; None = one is trained on the recipe's data first.

    Raises:
        TrainingError: See `Trainer.run`; or the folder is used and `resume` is False.
    """
    folder = Path(out_dir)
    if not resume and (folder / "recipe.json").exists():
        raise TrainingError(f"{folder} already holds a run; resume it or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    place = torch.device(device)
    config = model_config(recipe)
    source = row_source(recipe, config, folder, tokenizer_file)
    trainee = build(recipe, config, source, place)
    write_json(folder / "recipe.json", recipe.to_json())

    def feeds(stage: int, start: int) -> Feed:
        return Feed(source, recipe, stage, start, workers)

    budget_s = None if minutes is None else 60.0 * minutes
    trainer = Trainer(trainee, recipe, feeds, folder, place, steps, budget_s, quiet)
    with _stopping(trainer):
        facts = trainer.run()
    write_model(recipe, trainee, facts, folder, place)
    return facts


def row_source(
    recipe: Recipe, config: Phi4Config, folder: Path, tokenizer_file: str | Path | None = None
) -> RowSource:
    """Where the recipe's rows come from; makes its tokenizer in the run folder when needed."""
    if recipe.model == "counting":
        return CountingSource()
    from phi4.train.sources import WorldSource, world_tokenizer

    place = folder / "tokenizer"
    if tokenizer_file is not None and not place.exists():
        if not Path(tokenizer_file).is_file():
            raise TrainingError(f"there is no tokenizer file {tokenizer_file}")
        place.mkdir()
        shutil.copyfile(tokenizer_file, place / "tokenizer.json")
    tokenizer = world_tokenizer(recipe, config, place)
    return WorldSource(config, str(place), recipe.seed, tokenizer.tokens.pad)


def build(recipe: Recipe, config: Phi4Config, source: RowSource, device: torch.device) -> Trainee:
    """The model with initial weights and normalisation that depend on the recipe alone."""
    model = Phi4Model(config)
    init_weights(model, torch.Generator().manual_seed(recipe.seed))
    tasks = [task for stage in recipe.stages for task in stage.tasks]
    torch.manual_seed(recipe.seed)
    trainee = Trainee(
        model,
        ctc=any(task.objective == "ctc" or task.ctc_weight for task in tasks),
        glyphs=any(task.objective == "glyphs" or task.glyph_weight for task in tasks),
    )
    listened = [task for task in tasks if task.objective == "ctc"]
    if listened and model.speech is not None:
        rows = source.rows(listened[0], range(NORMALISATION_ROWS))
        frames = np.concatenate([audio.features for row in rows for audio in row.inputs.audios])
        norm = model.speech.encoder.encoder_embedding
        norm.global_mean.copy_(torch.from_numpy(frames.mean(axis=0)))
        norm.global_invstd.copy_(torch.from_numpy(1.0 / (frames.std(axis=0) + 1e-3)))
    trainee.to(device)
    model.use_attention(recipe.attention or None)
    return trainee


def write_model(recipe: Recipe, trainee: Trainee, facts: Facts, folder: Path, device: torch.device) -> Path:
    """Export the present weights to `folder/model`, also after an early stop."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    card = {
        "name": recipe.name,
        "recipe": recipe.to_json(),
        "parameters": sum(parameter.numel() for parameter in trainee.model.parameters()),
        "device": name,
        "torch": torch.__version__,
        "tokens_per_s": facts.tokens / facts.seconds if facts.seconds else 0.0,
        **vars(facts),
    }
    tokenizer = folder / "tokenizer" / "tokenizer.json"
    tokenizer_file = tokenizer if tokenizer.exists() else None
    config = trainee.model.config
    return export(trainee.model, config, folder / "model", card, tokenizer_file, recipe.shard_bytes)


@contextmanager
def _stopping(trainer: Trainer) -> Iterator[None]:
    """SIGTERM and Ctrl-C save and end the run instead of killing it; a second one acts as usual."""
    former: dict[int, Any] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        trainer.request_stop()
        signal.signal(number, former[number])

    try:
        for kind in (signal.SIGTERM, signal.SIGINT):
            former[kind] = signal.signal(kind, stop)
    except ValueError:  # not the main thread: the caller handles signals
        pass
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
