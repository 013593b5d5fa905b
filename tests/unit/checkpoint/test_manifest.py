"""Manifests catch every kind of change, and cannot be used to look outside their folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from phi4.checkpoint import verify_manifest, write_manifest
from phi4.checkpoint.manifest import read_manifest
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


@pytest.mark.parametrize("inside", ["a.bin", "deep/b.bin", "deep/c.bin"])
def test_link_that_leads_out_of_the_folder_is_refused(folder: Path, inside: str, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "c.bin").write_bytes(b"abc")
    if inside == "deep/c.bin":  # the folder of the file is the link
        shutil.rmtree(folder / "deep")
        (folder / "deep").symlink_to(outside)
    else:
        (folder / inside).unlink()
        (folder / inside).symlink_to(outside / "c.bin")
    write_manifest(folder, [inside])
    with pytest.raises(InvalidArtifact, match="a link that leads out"):
        verify_manifest(folder)


def test_link_inside_the_folder_and_into_blobs_of_a_hub_snapshot_is_followed(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "snapshots" / "main", tmp_path / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    (blobs / "0123").write_bytes(b"abc")
    (snapshot / "a.bin").symlink_to("../../blobs/0123")
    (snapshot / "b.bin").symlink_to("a.bin")
    write_manifest(snapshot)
    assert verify_manifest(snapshot) == ("a.bin", "b.bin")


def test_manifest_is_read_without_a_look_at_the_files(folder: Path) -> None:
    for path in (folder / "a.bin", folder / "deep" / "b.bin"):
        path.unlink()
    listed = read_manifest(folder)
    assert {name: stated.size_bytes for name, stated in listed.items()} == {"a.bin": 3, "deep/b.bin": 0}
    assert listed["a.bin"].sha256.startswith("ba7816bf8f01cfea")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"version": 2, "files": {}}',
        '{"version": 1, "files": {"a.bin": 3}}',
        '{"version": 1, "files": {"a.bin": {"bytes": 3}}}',
        '{"version": 1, "files": {"a.bin": {"bytes": true, "sha256": ""}}}',
    ],
)
def test_broken_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(InvalidArtifact, match=r"manifest\.json"):
        verify_manifest(folder)
