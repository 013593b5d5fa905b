"""Recipes are data: they survive JSON, refuse nonsense and know when two runs are the same."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from phi4.errors import TrainingError
from phi4.train.recipes import RECIPES
from phi4.train.settings import OptimSettings, Recipe, Stage, TaskShare


@pytest.mark.parametrize("name", sorted(RECIPES))
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_recipe_survives_json(name: str, device: str) -> None:
    recipe = RECIPES[name](device)
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"micro_batch": 0}, "micro_batch"),
        ({"replay": 0}, "replay"),
        ({"stages": ()}, "stage"),
        ({"stages": (Stage("s", ()),)}, "task"),
        ({"stages": (Stage("s", (TaskShare("t", 0.0),)),)}, "weights"),
        ({"stages": (Stage("s", (TaskShare("t"),), accumulate=0),)}, "accumulate"),
    ],
)
def test_impossible_recipe_is_refused_by_name(change: dict[str, object], named: str) -> None:
    with pytest.raises(TrainingError, match=named):
        replace(RECIPES["smoke"]("cpu"), **change)  # type: ignore[arg-type]


def test_digest_ignores_what_does_not_change_the_numbers() -> None:
    recipe = RECIPES["smoke"]("cpu")
    assert replace(recipe, log_every=7, save_every_s=9.0, keep=9).digest() == recipe.digest()
    assert replace(recipe, optim=OptimSettings(lr=1e-9)).digest() != recipe.digest()
    assert replace(recipe, seed=2).digest() != recipe.digest()
