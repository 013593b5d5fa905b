"""The shipped examples are what the script writes, small, and answered as the records say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def script(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "make_examples", repository / "scripts" / "make_examples.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_writes_the_same_bytes_twice_and_the_shipped_answers(
    script: ModuleType, tmp_path: Path, repository: Path
) -> None:
    script.main(tmp_path / "one")
    script.main(tmp_path / "two")
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("one", "two"))
    assert first == second
    shipped = repository / "examples" / "media"
    assert first["manifest.json"] == (shipped / "manifest.json").read_bytes()
    assert set(first) == {p.name for p in shipped.iterdir()}
    assert sum(map(len, first.values())) < 1_000_000


def test_every_file_of_the_manifest_exists(repository: Path) -> None:
    folder = repository / "examples" / "media"
    items = json.loads((folder / "manifest.json").read_text())["items"]
    named = {name for item in items for name in item.get("images", []) + item.get("audio", [])}
    assert named == {p.name for p in folder.iterdir()} - {"manifest.json"}
    assert {item["task"] for item in items} >= {
        "read_text",
        "speech_transcribe",
        "spoken_chart_qa",
        "command",
        "sums",
    }
