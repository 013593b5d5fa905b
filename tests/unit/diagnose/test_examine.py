"""A whole examination: every check once, in order, and nothing that is wrong stops it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from phi4.checkpoint import open_checkpoint, resolve_model, write_manifest
from phi4.diagnose import Asked, Finding, examine, exit_code, machine, worst
from phi4.diagnose.examine import BEFORE_LOADING, CANARIES
from phi4.onnx.building import ExportOptions, export_package


def by_name(found: Iterator[Finding]) -> dict[str, Finding]:
    listed = list(found)
    assert len({finding.name for finding in listed}) == len(listed)
    return {finding.name: finding for finding in listed}


def test_whole_model_has_nothing_wrong(whole: Path) -> None:
    found = by_name(examine(Asked(str(whole))))
    assert list(found) == [*BEFORE_LOADING, "loading", "text", "picture", "recording"]
    assert worst(found.values()) == "ok" and exit_code(found.values()) == 0
    assert all(finding.finding and not finding.advice for finding in found.values())


def test_only_parts_asked_for_are_tried(whole: Path) -> None:
    found = by_name(examine(Asked(str(whole), modalities=("text",), quick=True)))
    assert list(found)[-1] == "text" and "graphs decoder, head are whole" in found["weights"].finding


def test_no_check_raises_where_nothing_is_there(tmp_path: Path) -> None:
    found = by_name(examine(Asked(str(tmp_path))))
    assert set(found) == {*BEFORE_LOADING, "loading", *CANARIES} - {"nano"}
    assert found["config"].files and exit_code(found.values()) == 5
    assert found["loading"].finding == "left out: it needs what 'weights' did not find"


def test_unknown_model_is_an_error_of_no_file() -> None:
    found = by_name(examine(Asked("no/such/model/here")))
    assert found["model"].verdict == "error" and exit_code(found.values()) == 1


def test_garbage_for_every_file_is_told_file_by_file(model: Path) -> None:
    for path in model.rglob("*"):
        if path.is_file():
            path.write_bytes(b"\x00\xff{[" * 50)
    for runner in ("onnx", "torch"):
        found = by_name(examine(Asked(str(model), runner=runner)))
        assert {found[name].verdict for name in ("config", "checksums")} == {"error"}
        assert exit_code(found.values()) == 5


def test_model_too_large_for_the_memory_is_not_loaded(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_bytes", lambda: 1000)
    found = by_name(examine(Asked(str(whole), quick=True)))
    assert found["memory"].verdict == "error"
    assert found["loading"].finding == "left out: the memory is too small for this model"
    assert found["text"].finding == "left out: it needs what 'loading' did not find"
    assert exit_code(found.values()) == 1


def test_damage_the_files_do_not_show_is_caught_by_the_canaries(model: Path) -> None:
    """Scales of the head overwritten by NaN, and the manifest written anew as a careless tool would."""
    data = model / "onnx" / "head.onnx.data"
    data.write_bytes(b"\xff" * data.stat().st_size)
    write_manifest(model / "onnx")
    found = by_name(examine(Asked(str(model))))
    assert found["weights"].verdict == found["checksums"].verdict == "ok"
    assert {found[name].verdict for name in ("text", "picture", "recording")} == {"error"}


def test_broken_library_is_a_finding(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise ImportError("libonnxruntime.so: cannot open shared object file")

    monkeypatch.setattr(machine, "check_runner", refuse)
    found = by_name(examine(Asked(str(whole), quick=True)))
    assert "ImportError: libonnxruntime.so" in found["runner"].finding


def test_built_in_nano_is_well() -> None:
    found = by_name(examine(Asked("nano")))
    assert exit_code(found.values()) == 0, [f for f in found.values() if f.verdict == "error"]
    assert found["nano"].verdict == "ok"


def test_exported_nano_is_well_and_no_longer_the_built_in_one(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(resolve_model("nano"))
    package = export_package(checkpoint, tmp_path / "nano", ExportOptions(precision="int8"))
    found = by_name(examine(Asked(str(package))))
    assert exit_code(found.values()) == 0, [f for f in found.values() if f.verdict == "error"]
    assert "nano" not in found
