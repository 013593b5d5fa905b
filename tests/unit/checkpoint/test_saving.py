"""Saving over an earlier model: a crash leaves one of the two or none, no mixture; what is stale goes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from phi4.checkpoint import open_checkpoint, part_of, save_checkpoint
from phi4.configs import Phi4Config, read_config
from phi4.errors import InvalidConfig, InvalidRequest

Saved = Callable[..., Path]
ONE_FILE = 1 << 30


class Crash(BaseException):
    """The process ends here."""


def die_after(patch: pytest.MonkeyPatch, num_steps: int) -> None:
    """Let this many files be renamed or deleted; nothing more happens on the disk after that."""
    done = 0
    for name in ("replace", "rename", "unlink"):
        real = getattr(os, name)

        def step(*args: Any, real: Callable[..., Any] = real, **kwargs: Any) -> Any:
            nonlocal done
            if done == num_steps:
                raise Crash
            done += 1
            return real(*args, **kwargs)

        patch.setattr(os, name, step)


def found(folder: Path, models: dict[str, Any]) -> str:
    """Which of the models stands there; "none" = refused for want of a config."""
    try:
        checkpoint = open_checkpoint(folder)
    except InvalidConfig as problem:
        assert "config.json: cannot be read" in str(problem)
        return "none"
    for word, tensors in models.items():
        if set(checkpoint.entries) == set(tensors) and all(
            checkpoint.read(name).tobytes() == array.tobytes() for name, array in tensors.items()
        ):
            return word
    return "mixture"


def outcomes(
    folder: Path,
    before: Callable[[], object],
    save: Callable[[], object],
    models: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:
    """What stands in the folder after a crash at each step of `save`, the whole of it last."""
    words = []
    while True:
        before()
        with monkeypatch.context() as patch:
            die_after(patch, len(words))
            try:
                save()
                crashed = False
            except Crash:
                crashed = True
        words.append(found(folder, models))
        if not crashed:
            return words


@pytest.mark.parametrize(
    ("first", "second"), [(ONE_FILE, ONE_FILE), (100_000, ONE_FILE), (ONE_FILE, 100_000), (100_000, 400_000)]
)
def test_crash_at_any_step_leaves_the_old_weights_or_the_new(
    saved: Saved, tiny: Phi4Config, tensors: Any, monkeypatch: pytest.MonkeyPatch, first: int, second: int
) -> None:
    new = {name: -array for name, array in tensors.items()}
    folder = saved("original", first)
    words = outcomes(
        folder,
        lambda: saved("original", first),
        lambda: save_checkpoint(folder, tiny, new, "original", second),
        {"old": tensors, "new": new},
        monkeypatch,
    )
    assert words == ["old"] * words.count("old") + ["new"] * words.count("new")
    assert words[0] == "old" and words[-1] == "new"
    if second == ONE_FILE:
        assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}


@pytest.mark.parametrize(("layout", "shard_bytes"), [("original", 400_000), ("hf", ONE_FILE)])
def test_where_several_files_must_change_together_a_crash_leaves_no_mixture(
    saved: Saved,
    tiny: Phi4Config,
    tensors: Any,
    monkeypatch: pytest.MonkeyPatch,
    layout: Any,
    shard_bytes: int,
) -> None:
    new = {name: -array for name, array in tensors.items()}
    folder = saved(layout, shard_bytes)
    words = outcomes(
        folder,
        lambda: saved(layout, shard_bytes),
        lambda: save_checkpoint(folder, tiny, new, layout, shard_bytes),
        {"old": tensors, "new": new},
        monkeypatch,
    )
    assert sorted(words, key=["old", "none", "new"].index) == words
    assert words[0] == "old" and "none" in words and words[-1] == "new"
    assert not (folder / ".writing").exists()


def without_speech(config: Phi4Config, tensors: Any) -> tuple[Phi4Config, dict[str, Any]]:
    """The model with its encoders, but without the speech adapter."""
    kept = {name: array for name, array in tensors.items() if part_of(name) != "adapter:speech"}
    return replace(config, adapters=config.adapters[:1]), kept


def test_adapter_the_new_model_lacks_is_gone_from_the_hf_layout(
    saved: Saved, tiny: Phi4Config, tensors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, fewer = without_speech(tiny, tensors)
    folder = saved("hf")
    words = outcomes(
        folder,
        lambda: saved("hf"),
        lambda: save_checkpoint(folder, config, fewer, "hf"),
        {"old": tensors, "new": fewer},
        monkeypatch,
    )
    assert sorted(words, key=["old", "none", "new"].index) == words
    assert not (folder / "speech-lora").exists()
    assert [adapter.name for adapter in read_config(folder).adapters] == ["vision"]


def test_folders_that_hold_more_than_an_adapter_are_never_deleted(
    saved: Saved, tiny: Phi4Config, tensors: Any
) -> None:
    config, fewer = without_speech(tiny, tensors)
    folder = saved("hf")
    (folder / "my-lora").mkdir()
    (folder / "my-lora" / "recipe.md").write_text("how it was made")
    (folder / "speech-lora" / "notes.md").write_text("measured on Monday")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(InvalidRequest, match=r"speech-lora: .*also holds 'notes\.md'.*move it"):
        save_checkpoint(folder, config, fewer, "hf")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    (folder / "speech-lora" / "notes.md").unlink()
    (folder / "speech-lora").rename(folder.parent / "elsewhere")
    (folder / "speech-lora").symlink_to(folder.parent / "elsewhere")
    with pytest.raises(InvalidRequest, match=r"speech-lora: .*it is a link"):
        save_checkpoint(folder, config, fewer, "hf")
    (folder / "speech-lora").unlink()
    save_checkpoint(folder, config, fewer, "hf")
    assert (folder / "my-lora" / "recipe.md").is_file()
    assert len(list((folder.parent / "elsewhere").iterdir())) == 2
