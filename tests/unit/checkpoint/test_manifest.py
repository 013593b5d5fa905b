"""Manifests catch every kind of change, and cannot be used to look outside their folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from phi4.checkpoint import verify_manifest, write_manifest
from phi4.errors import InvalidArtifact


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.bin").write_bytes(b"abc")
    (tmp_path / "deep" / "b.bin").write_bytes(b"")
    (tmp_path / ".hidden").write_bytes(b"x")
    write_manifest(tmp_path)
    return tmp_path


def test_manifest_lists_visible_files_with_size_and_digest(folder: Path) -> None:
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    assert set(listed) == {"a.bin", "deep/b.bin"}
    assert listed["a.bin"]["bytes"] == 3
    # SHA-256 of "abc" from the standard's own examples.
    assert listed["a.bin"]["sha256"].startswith("ba7816bf8f01cfea414140de5dae2223")
    assert verify_manifest(folder) == ("a.bin", "deep/b.bin")


def test_all_changes_are_told_together(folder: Path) -> None:
    (folder / "a.bin").write_bytes(b"abd")
    (folder / "deep" / "b.bin").unlink()
    with pytest.raises(InvalidArtifact, match=r"a\.bin has other contents.*deep/b\.bin is missing"):
        verify_manifest(folder)
    (folder / "a.bin").write_bytes(b"abcd")
    with pytest.raises(InvalidArtifact, match="has 4 bytes instead of 3"):
        verify_manifest(folder)


def test_chosen_files_only_and_a_missing_one_refused(folder: Path) -> None:
    write_manifest(folder, ["a.bin"])
    assert verify_manifest(folder) == ("a.bin",)
    with pytest.raises(InvalidArtifact, match=r"nothing\.bin"):
        write_manifest(folder, ["nothing.bin"])


@pytest.mark.parametrize("name", ["../a.bin", "/etc/passwd", "deep/../../a.bin", "a\\b"])
def test_manifest_naming_a_file_outside_is_refused(folder: Path, name: str) -> None:
    entry = {"bytes": 3, "sha256": "0" * 64}
    (folder / "manifest.json").write_text(json.dumps({"version": 1, "files": {name: entry}}))
    with pytest.raises(InvalidArtifact, match="only files of the folder"):
        verify_manifest(folder)


@pytest.mark.parametrize(
    "text", ["", "{}", '{"version": 2, "files": {}}', '{"version": 1, "files": {"a.bin": 3}}']
)
def test_broken_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(InvalidArtifact, match=r"manifest\.json"):
        verify_manifest(folder)
