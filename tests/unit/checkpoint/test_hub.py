"""Names become directories: built in, on disk, from a hub on loopback, from the cache offline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phi4.checkpoint import open_checkpoint, resolve_model
from phi4.errors import InvalidArtifact, ModelNotFound

Saved = Callable[..., Path]
CODE = """
import sys
from phi4.checkpoint import resolve_model
from phi4.errors import ModelNotFound
try:
    print('FOUND', resolve_model(sys.argv[1], sys.argv[2].split(',') if sys.argv[2] else None))
except ModelNotFound as problem:
    print('REFUSED', problem)
"""
Resolve = Callable[..., list[str]]


@pytest.fixture
def resolve(elsewhere: Callable[..., str]) -> Resolve:
    """`resolve(name, "text", HF_ENDPOINT=...)` gives FOUND and a folder, or REFUSED and the message."""
    return lambda name, parts, **variables: elsewhere(CODE, name, parts, **variables).split(" ", 1)


@pytest.fixture
def hub(saved: Saved, serve: Callable[[Path], Any]) -> Any:
    folder = saved("original", 50_000, "remote")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "preprocessor_config.json").write_text('{"dynamic_hd": 16}')
    for name in ("README.md", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        (folder / name).write_text("not needed")
    (folder / "modeling.py").write_text("raise SystemExit")
    return serve(folder)


def test_only_the_files_of_the_asked_modalities_are_fetched_and_found_again_offline(
    hub: Any, resolve: Resolve, tmp_path: Path
) -> None:
    word, folder = resolve("owner/tiny", "text", HF_ENDPOINT=hub.url)
    assert word == "FOUND" and Path(folder).is_relative_to(tmp_path / "home")
    shards = {name for name in hub.fetched if name.endswith(".safetensors")}
    read = {"config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors.index.json"}
    templates = {"tokenizer_config.json", "chat_template.jinja"}  # what doctor compares
    assert hub.fetched - shards == read | templates
    assert 0 < len(shards) < len([name for name in hub.files() if name.endswith(".safetensors")])
    checkpoint = open_checkpoint(folder, ("text",))
    assert checkpoint.read("decoder.norm.weight").shape == (64,)

    offline = {"HF_HUB_OFFLINE": "1"}
    assert resolve("owner/tiny", "text", **offline) == ["FOUND", folder]
    word, told = resolve("owner/tiny", "", **offline)
    assert word == "REFUSED" and "not in the local cache" in told and "HF_HUB_OFFLINE" in told

    hub.fetched.clear()
    word, _ = resolve("owner/tiny@main", "", HF_ENDPOINT=hub.url)
    assert word == "FOUND"
    # What the text model brought is not fetched again.
    assert hub.fetched and not hub.fetched & (shards | {"config.json"})
    assert set(open_checkpoint(folder).config.modalities) == {"text", "vision", "speech"}


def test_failures_of_the_hub_say_what_to_do(hub: Any, resolve: Resolve) -> None:
    word, told = resolve("owner/other", "", HF_ENDPOINT=hub.url)
    assert word == "REFUSED" and "no such repository" in told
    word, told = resolve("owner/tiny", "", HF_HUB_OFFLINE="1")
    assert word == "REFUSED" and "owner/tiny" in told and "cache" in told


def test_directory_is_taken_as_it_is(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved("mini")
    assert resolve_model(folder) == folder
    monkeypatch.chdir(folder.parent)
    assert resolve_model("./model") == Path("model")


def test_built_in_model_stands_in_the_package_or_says_how_to_make_it(
    saved: Saved, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("phi4.checkpoint.hub.resources.files", lambda _package: tmp_path)
    with pytest.raises(ModelNotFound, match="make nano"):
        resolve_model("nano")
    (tmp_path / "assets").mkdir()
    saved("original").rename(tmp_path / "assets" / "nano")
    assert open_checkpoint(resolve_model("nano")).layout == "original"


@pytest.mark.parametrize(
    "name",
    [
        "./nothing",
        "/nowhere/at/all",
        "nanoo",
        "a/b/c",
        "",
        "../x/y",
        "owner/name@",
        "~nobody/x",
        "x" * 5000,
        "a\0b",
    ],
)
def test_name_of_nothing_is_refused_with_what_would_do(name: str) -> None:
    with pytest.raises(ModelNotFound, match=r"built-in models \['nano'\] or a hub id"):
        resolve_model(name, ("text",))


def test_file_is_refused_and_a_pickle_first_of_all(saved: Saved) -> None:
    folder = saved("mini")
    with pytest.raises(InvalidArtifact, match="give the directory"):
        resolve_model(folder / "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    with pytest.raises(InvalidArtifact, match="pickle checkpoint"):
        resolve_model(folder / "pytorch_model.bin")
