"""A digest is compared once for each state of a file, wherever that is remembered, or every time."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from phi4.checkpoint import sha256_file
from phi4.onnx.package import verified
from phi4.onnx.package.verified import FILE_NAME, VerifiedFiles, cache_folder


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files whose digest was computed."""
    found: list[Path] = []

    def reading(path: Path) -> str:
        found.append(path)
        return sha256_file(path)

    monkeypatch.setattr(verified, "sha256_file", reading)
    return found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "head.onnx.data"
    path.write_bytes(b"weights")
    return path


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"PHI4_CACHE": "/fast/phi4", "XDG_CACHE_HOME": "/other"}, Path("/fast/phi4")),
        ({"PHI4_CACHE": " ", "XDG_CACHE_HOME": "/other"}, Path("/other/phi4")),
        ({"XDG_CACHE_HOME": "not/absolute"}, Path.home() / ".cache" / "phi4"),
        ({}, Path.home() / ".cache" / "phi4"),
    ],
)
def test_cache_stands_where_the_user_wants_it_or_where_caches_are(
    environment: dict[str, str], folder: Path
) -> None:
    assert cache_folder(environment) == folder


def test_file_is_read_once_for_each_state_of_it(data: Path, read: list[Path], tmp_path: Path) -> None:
    digest = sha256_file(data)
    for _ in range(3):  # new objects, as in new processes
        assert VerifiedFiles(tmp_path / "cache").has_digest(data, digest)
    assert read == [data]
    os.utime(data, ns=(0, data.stat().st_mtime_ns + 1))
    assert VerifiedFiles(tmp_path / "cache").has_digest(data, digest)
    assert len(read) == 2
    assert not VerifiedFiles(tmp_path / "cache").has_digest(data, "0" * 64), "another digest is asked for"
    assert len(read) == 3


def test_digest_that_was_just_computed_is_taken_without_reading(
    data: Path, read: list[Path], tmp_path: Path
) -> None:
    digest = sha256_file(data)
    VerifiedFiles(tmp_path / "cache").remember(data, digest)
    assert VerifiedFiles(tmp_path / "cache").has_digest(data, digest) and read == []
    assert not VerifiedFiles(tmp_path / "cache").has_digest(data, "0" * 64) and read == [data]


def test_one_file_under_two_names_is_remembered_as_one(data: Path, read: list[Path], tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(data)
    for path in (data, link):
        assert VerifiedFiles(tmp_path).has_digest(path, sha256_file(data))
    assert read == [data]


def test_what_differs_is_not_remembered(data: Path, read: list[Path], tmp_path: Path) -> None:
    for _ in range(2):
        assert not VerifiedFiles(tmp_path / "cache").has_digest(data, "0" * 64)
    assert len(read) == 2 and not (tmp_path / "cache").exists()


def test_files_that_are_gone_are_forgotten_and_no_others(data: Path, tmp_path: Path) -> None:
    other, third = tmp_path / "other", tmp_path / "third"
    for path in (other, third):
        path.write_bytes(path.name.encode())
    for path in (data, other, third):
        assert VerifiedFiles(tmp_path / "cache").has_digest(path, sha256_file(path))
        data.unlink(missing_ok=path is not data)
    held = json.loads((tmp_path / "cache" / FILE_NAME).read_text())["files"]
    assert set(held) == {str(other.resolve()), str(third.resolve())}
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [FILE_NAME]


@pytest.mark.parametrize("text", ["{", "[]", '{"files": 3}', '{"files": {}, "files": {}}'])
def test_broken_memory_is_none_and_written_anew(
    text: str, data: Path, read: list[Path], tmp_path: Path
) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    for _ in range(2):
        assert VerifiedFiles(tmp_path).has_digest(data, sha256_file(data))
    assert read == [data]


def test_without_a_place_to_remember_files_are_read_every_time(
    data: Path, read: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "in-the-way").write_text("a file where the folder would be")
    for folder in (None, tmp_path / "in-the-way"):
        read.clear()
        for _ in range(2):
            assert VerifiedFiles(folder).has_digest(data, sha256_file(data))
        assert len(read) == 2
