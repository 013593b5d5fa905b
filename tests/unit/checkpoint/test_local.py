"""Models on this machine: found by their configs, in a cache of its own, removed only from there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from phi4.errors import InvalidRequest

Saved = Callable[..., Path]
CODE = """
import json, sys
from pathlib import Path
from phi4.checkpoint import resolve_model
from phi4.checkpoint.local import models_on_disk, remove_cached
from phi4.errors import Phi4Error
try:
    if sys.argv[1] == "pull":
        print(resolve_model(sys.argv[2], None))
    elif sys.argv[1] == "rm":
        print(remove_cached(sys.argv[2]))
    else:
        print(json.dumps([[m.name, m.place, m.num_bytes, m.modalities] for m in models_on_disk()]))
except Phi4Error as problem:
    print(type(problem).__name__, problem)
"""


@pytest.fixture
def hub(saved: Saved, serve: Callable[[Path], object]) -> object:
    folder = saved("original", 50_000, "remote")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "preprocessor_config.json").write_text('{"dynamic_hd": 16}')
    return serve(folder)


def test_pulled_model_is_listed_and_can_be_removed_again(hub: object, elsewhere: Callable[..., str]) -> None:
    def run(*words: str) -> str:
        return elsewhere(CODE, *words, HF_ENDPOINT=hub.url)

    def cached() -> list[list[object]]:
        return [model for model in json.loads(run("list")) if model[1] == "cache"]

    assert cached() == []
    assert run("rm", "owner/tiny").startswith("ModelNotFound owner/tiny")
    run("pull", "owner/tiny")
    ((name, _, size, modalities),) = cached()
    assert (name, modalities) == ("owner/tiny", ["text", "vision", "speech"]) and size > 100_000
    assert run("rm", "owner/tiny@v9").startswith("ModelNotFound")
    assert int(run("rm", "owner/tiny")) > 100_000
    assert cached() == []


def test_folders_are_looked_into_one_level_deep(saved: Saved, tmp_path: Path) -> None:
    from phi4.checkpoint.local import models_on_disk

    folder = saved("mini", 1 << 30, "models/small")
    (tmp_path / "models" / "other").mkdir()
    (tmp_path / "models" / "other" / "config.json").write_text('{"model_type": "llama"}')
    found = [model for model in models_on_disk([tmp_path / "models"]) if model.place == "folder"]
    assert [(model.name, model.modalities) for model in found] == [(str(folder), ("text",))]
    assert [model.name for model in models_on_disk([folder]) if model.place == "folder"] == [str(folder)]
    with pytest.raises(InvalidRequest, match="no such folder"):
        models_on_disk([tmp_path / "nothing"])


def test_what_was_not_downloaded_is_not_removed(saved: Saved) -> None:
    from phi4.checkpoint.local import remove_cached

    folder = saved("mini")
    with pytest.raises(InvalidRequest, match="delete yourself"):
        remove_cached(str(folder))
    with pytest.raises(InvalidRequest, match="built in"):
        remove_cached("nano")
    assert (folder / "config.json").is_file()
