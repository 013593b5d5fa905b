"""Training: one trainer for every objective, from a recipe to an exported checkpoint.

A recipe (`recipes.nano()`) is plain data; `run(recipe, out_dir)` builds the model, feeds it from
worker processes and drives the `Trainer`; objectives are pure functions from a batch to a loss.
Checkpoints are atomic and resume bit for bit. One process: parallelism is applied from outside.
Names resolve on first use, so worker processes that only prepare data never load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phi4.train.recipes import RECIPES, nano
    from phi4.train.run import run
    from phi4.train.settings import Recipe
    from phi4.train.trainer import Trainer

__all__ = ["RECIPES", "Recipe", "Trainer", "nano", "run"]

_HOMES = {
    "RECIPES": "phi4.train.recipes",
    "Recipe": "phi4.train.settings",
    "Trainer": "phi4.train.trainer",
    "nano": "phi4.train.recipes",
}


def __getattr__(name: str) -> Any:
    if name == "run":
        function = import_module("phi4.train.run").run
        globals()["run"] = function  # the import just bound the submodule here; callers want the function
        return function
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'phi4.train' has no attribute {name!r}")
