"""`phi4 list`, `pull` and `rm`: what they print, and what they refuse without asking."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from phi4.cli.main import main
from phi4.testing.tiny import write_tiny_checkpoint


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(tmp_path / "cache"))


def test_list_shows_built_in_models_and_those_of_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_checkpoint(tmp_path / "models" / "tiny")
    assert main(["list", str(tmp_path / "models")]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "takes", "size", "where"]
    assert [row.split()[0] for row in rows] == ["nano", str(tmp_path / "models" / "tiny")]
    assert rows[0].endswith("built in") and "text+vision+speech" in rows[1] and rows[1].endswith("folder")


def test_list_for_programs_is_one_object_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny_checkpoint(tmp_path / "tiny", "mini")
    assert main(["list", str(tmp_path / "tiny"), "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [model["place"] for model in found] == ["built in", "folder"]
    assert found[1]["modalities"] == ["text"] and found[1]["num_bytes"] > 1000


def test_list_of_a_folder_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", str(tmp_path / "nothing")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_pull_of_what_is_here_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny_checkpoint(tmp_path / "tiny")
    assert main(["pull", str(tmp_path / "tiny")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "tiny")
    assert main(["pull", str(tmp_path / "nothing")]) == 6


def test_rm_asks_nobody_where_nobody_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rm", "owner/tiny"]) == 2
    assert "--yes" in capsys.readouterr().err


def test_rm_goes_on_after_a_failure_and_keeps_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rm", "--yes", "owner/tiny", "nano", "--json"]) == 6
    errors = [json.loads(line)["error"]["type"] for line in capsys.readouterr().err.splitlines()]
    assert errors == ["ModelNotFound", "InvalidRequest"]
