"""A hub repository is described from small files and headers; the weights stay where they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phi4.checkpoint import describe

Saved = Callable[..., Path]
CODE = """
import json, sys
from phi4.checkpoint import describe_model
from phi4.errors import Phi4Error
try:
    print(json.dumps(describe_model(sys.argv[1]).as_dict()))
except Phi4Error as problem:
    print(json.dumps({"refused": type(problem).__name__, "says": str(problem)}))
"""
FETCH = """
import sys
from phi4.checkpoint import open_checkpoint, resolve_model
parts = sys.argv[2].split(",")
open_checkpoint(resolve_model(sys.argv[1], parts), parts)
"""


@pytest.fixture
def look(elsewhere: Callable[..., str]) -> Callable[..., dict[str, Any]]:
    """`look("owner/tiny", HF_ENDPOINT=...)` gives the report as plain values, or what was refused."""
    return lambda name, **variables: json.loads(elsewhere(CODE, name, **variables))


def without_path(report: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in report.items() if key != "path"}


def test_full_size_repository_is_described_from_less_than_two_megabytes(
    full_size: Path, serve: Callable[[Path], Any], look: Callable[..., dict[str, Any]]
) -> None:
    hub = serve(full_size)
    told = look("owner/tiny", HF_ENDPOINT=hub.url)
    assert without_path(told) == without_path(json.loads(json.dumps(describe(full_size).as_dict())))
    assert told["path"].startswith("owner/tiny@0123456789")
    assert hub.fetched == {"config.json", "model.safetensors.index.json"}
    assert hub.sent_bytes < 2_000_000 < 11_000_000_000 < sum(told["weight_bytes"].values())


@pytest.mark.parametrize(("layout", "shard_bytes"), [("hf", 60_000), ("hf", 1 << 30), ("mini", 1 << 30)])
def test_adapter_folders_and_single_files_are_described_like_the_directory(
    saved: Saved,
    serve: Callable[[Path], Any],
    look: Callable[..., dict[str, Any]],
    layout: str,
    shard_bytes: int,
) -> None:
    folder = saved(layout, shard_bytes)
    hub = serve(folder)
    told = look("owner/tiny@main", HF_ENDPOINT=hub.url)
    assert without_path(told) == without_path(json.loads(json.dumps(describe(folder).as_dict())))
    assert not [name for name in hub.fetched if name.endswith(".safetensors")]


def test_offline_the_cache_answers_and_names_what_it_lacks(
    saved: Saved,
    serve: Callable[[Path], Any],
    look: Callable[..., dict[str, Any]],
    elsewhere: Callable[..., str],
) -> None:
    folder = saved("hf", 60_000)
    hub, offline = serve(folder), {"HF_HUB_OFFLINE": "1"}
    assert look("owner/tiny", **offline)["refused"] == "ModelNotFound"
    online = look("owner/tiny", HF_ENDPOINT=hub.url)
    told = look("owner/tiny", **offline)
    assert told["absent_files"] and told["missing"] and told["parameters"]["total"] == 0
    # The adapters' configs came with the report; a text model still needs none of their weights.
    elsewhere(FETCH, "owner/tiny", "text", HF_ENDPOINT=hub.url)
    told = look("owner/tiny", **offline)
    assert told["parameters"]["text"] == online["parameters"]["text"]
    assert told["parameters"]["vision"] < online["parameters"]["vision"]
    assert told["parameters"]["adapter:vision"] == 0
    assert "vision-lora/adapter_model.safetensors" in told["absent_files"]
    elsewhere(FETCH, "owner/tiny", "text,vision,speech", HF_ENDPOINT=hub.url)
    assert look("owner/tiny", **offline) == online


def test_repository_without_safetensors_or_with_a_broken_header_is_refused(
    saved: Saved, serve: Callable[[Path], Any], look: Callable[..., dict[str, Any]]
) -> None:
    folder = saved("mini")
    hub = serve(folder)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    told = look("owner/tiny", HF_ENDPOINT=hub.url)
    assert told["refused"] == "ModelNotFound" and "Pickle weights are not read" in told["says"]
    (folder / "model.safetensors").write_bytes(weights[:20] + b"\xff" + weights[21:])
    told = look("owner/tiny", HF_ENDPOINT=hub.url)
    assert told["refused"] == "InvalidArtifact" and "model.safetensors" in told["says"]
    told = look("owner/other", HF_ENDPOINT=hub.url)
    assert told["refused"] == "ModelNotFound" and "no such repository" in told["says"]
