"""From a recipe to a trained, exported model: builds the parts, runs the trainer, writes the result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from phi4.configs import NANO, Phi4Config, tiny_multimodal
from phi4.errors import TrainingError
from phi4.model import Phi4Model, init_weights
from phi4.train.collate import collate
from phi4.train.counting import CountingSource
from phi4.train.export import export
from phi4.train.feed import Feed, RowSource
from phi4.train.objectives import Trainee
from phi4.train.settings import Recipe
from phi4.train.state import RunLock, write_json
from phi4.train.trainer import Facts, Trainer
from phi4.version import __version__

NORMALISATION_ROWS = 64
"""Recordings whose log-mel statistics normalise the speech encoder's input."""


def model_config(recipe: Recipe) -> Phi4Config:
    """The architecture a recipe names.

    Raises:
        TrainingError: Nobody knows that name.
    """
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
    profile: bool = False,
) -> Facts:
    """Train a recipe and export the result to `out_dir/model`.

    Args:
        recipe: For instance `recipes.nano("cuda")`.
        out_dir: Run folder: checkpoints, logs, the exported model.
        device: "cpu", "cuda", "cuda:1" ...
        workers: Processes that generate data; 0 = generate between steps.
        resume: Go on where a former run in this folder stopped; False = refuse a used folder.
        steps: Optimiser steps of the whole run; overrides the recipe.
        minutes: Wall time of the whole run, earlier parts included; the steps are fitted to it. A run that
            goes on keeps its own when this is None.
        quiet: No terminal output.
        tokenizer_file: A `tokenizer.json` to use; None = one is trained on the recipe's data first.
        profile: Print a table of where the time went, by operator, to standard error.

    Raises:
        TrainingError: See `Trainer.run`; or another trainer owns the folder, or it holds another recipe's
            run, or any run and `resume` is False.
    """
    folder, place, config = Path(out_dir), torch.device(device), model_config(recipe)
    with RunLock(folder):
        _claim(folder, recipe, resume)
        source = row_source(recipe, config, folder, tokenizer_file)
        trainee = build(recipe, config, source, place)

        def feeds(stage: int, start: int) -> Feed:
            return Feed(source, recipe, stage, start, workers)

        budget_s = None if minutes is None else 60.0 * minutes
        identity = data_identity(recipe, config, source)
        trainer = Trainer(trainee, recipe, feeds, folder, place, steps, budget_s, quiet, identity)
        with _stopping(trainer), _profiling() if profile else nullcontext():
            facts = trainer.run()
        write_model(recipe, trainee, facts, folder, place)
    return facts


def _claim(folder: Path, recipe: Recipe, resume: bool) -> None:
    """Write `recipe.json` into a new run folder; leave a folder alone that holds something else."""
    path = folder / "recipe.json"
    if path.exists():
        if not resume:
            raise TrainingError(f"{folder} already holds a run; resume it or choose another folder")
        former = Recipe.from_json(json.loads(path.read_text(encoding="utf-8")))
        if former.digest() != recipe.digest():
            raise TrainingError(
                f"{folder} holds a run of another recipe, or of {former.name!r} with other settings; "
                "choose another folder"
            )
    write_json(path, recipe.to_json())


def data_identity(recipe: Recipe, config: Phi4Config, source: RowSource) -> str:
    """Fingerprint of model, tokenizer and generators: the config, and the first row of every task.

    A run that goes on under other code or another synthesizer than it began with would be neither run.
    """
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(config), sort_keys=True, default=str).encode())
    tasks = dict.fromkeys(task for stage in recipe.stages for task in stage.tasks)
    for task in tasks:
        _feed_digest(digest, collate(source.rows(task, [0]), source.pad_id))
    return digest.hexdigest()


def _feed_digest(digest: Any, value: Any) -> None:
    """Adds arrays, and what dataclasses and sequences hold, to a hash."""
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _feed_digest(digest, getattr(value, field.name))
    elif isinstance(value, list | tuple):
        for entry in value:
            _feed_digest(digest, entry)
    else:
        digest.update(repr(value).encode())


def row_source(
    recipe: Recipe, config: Phi4Config, folder: Path, tokenizer_file: str | Path | None = None
) -> RowSource:
    """Where the recipe's rows come from; makes its tokenizer in the run folder when needed.

    Raises:
        TrainingError: There is no such tokenizer file.
    """
    if recipe.model == "counting":
        return CountingSource()
    from phi4.train.sources import WorldSource, world_tokenizer

    place = folder / "tokenizer"
    if tokenizer_file is not None and not place.exists():
        if not Path(tokenizer_file).is_file():
            raise TrainingError(f"there is no tokenizer file {tokenizer_file}")
        given = place.with_name(".tokenizer.given")
        given.mkdir(exist_ok=True)
        shutil.copyfile(tokenizer_file, given / "tokenizer.json")
        os.rename(given, place)
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
        "phi4": __version__,
        "torch": torch.__version__,
        "tokens_per_s": facts.tokens / facts.seconds if facts.seconds else 0.0,
        **vars(facts),
    }
    tokenizer = folder / "tokenizer" / "tokenizer.json"
    tokenizer_file = tokenizer if tokenizer.exists() else None
    config = trainee.model.config
    return export(trainee.model, config, folder / "model", card, tokenizer_file, recipe.shard_bytes)


@contextmanager
def _profiling() -> Iterator[None]:
    """Prints the twenty dearest operators at the end."""
    with torch.profiler.profile() as profiler:
        yield
    table = profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=20)
    print(table, file=sys.stderr)


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
