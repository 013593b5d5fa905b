"""A preparation is whole or not there, costs nobody's files, and makes room for itself alone."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phi4.checkpoint import sha256_file, write_manifest
from phi4.errors import InvalidArtifact, InvalidRequest, Phi4Error
from phi4.onnx import OnnxPackage, open_package
from phi4.onnx.build.network.linear import Kind, Precision
from phi4.onnx.package.parts import plain_form
from phi4.onnx.serving import prepared, preparing
from phi4.onnx.serving.prepared import find_prepared
from phi4.onnx.serving.preparing import prepare, remove_prepared
from phi4.registry import find_form
from phi4.testing.tiny import tiny_config, tiny_tensors


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of all preparations."""
    monkeypatch.setenv("PHI4_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prepared"


@pytest.fixture
def package(tiny_folder: Path, tmp_path: Path) -> OnnxPackage:
    """One that a test may change."""
    return open_package(shutil.copytree(tiny_folder, tmp_path / "package"))


def quietly(name: str, done: int, total: int) -> None:
    """Nobody is told."""


def there(home: Path) -> set[str]:
    return {path.name for path in home.iterdir()} - {"lock"}


def exported_again(package: OnnxPackage, number: int = 1) -> OnnxPackage:
    """The same folder with other weights."""
    data = package.path / "decoder.onnx.data"
    values = bytearray(data.read_bytes())
    values[0] ^= number
    data.write_bytes(values)
    write_manifest(package.path)
    return open_package(package.path)


def test_package_is_left_as_it_is_and_every_graph_is_prepared(package: OnnxPackage, home: Path) -> None:
    def state() -> dict[str, tuple[str, int]]:
        return {path.name: (sha256_file(path), path.stat().st_mtime_ns) for path in package.path.iterdir()}

    before = state()
    found = prepare(package, quietly)
    assert state() == before and there(home) == {found.folder.name}
    assert set(found.graphs) == set(package.graphs) and found == find_prepared(package.path)
    assert found.nbytes == sum(found.files.values()) > 0


def test_progress_of_every_graph_ends_with_what_was_written(package: OnnxPackage) -> None:
    told: dict[str, tuple[int, int]] = {}
    found = prepare(package, lambda name, done, total: told.update({name: (done, total)}))
    assert tuple(told) == package.graphs
    for name, (done, total) in told.items():
        assert done == total == found.files[f"{name}.onnx"] + found.files.get(f"{name}.onnx.data", 0)


def test_nothing_stays_when_a_graph_cannot_be_stored(
    package: OnnxPackage, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = preparing.store_session

    def store(path: Path, target: Path) -> None:
        if path.name == "head.onnx":
            raise InvalidArtifact("no such luck")
        real(path, target)

    monkeypatch.setattr(preparing, "store_session", store)
    with pytest.raises(InvalidArtifact, match="no such luck"):
        prepare(package, quietly)
    assert there(home) == set() and find_prepared(package.path) is None


def test_what_computes_something_else_is_not_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = find_form("nano", "onnx")
    nano = open_package(Path(str(folder)))
    assert "vision" not in prepare(nano, quietly).graphs, "weights at odd places are left out"
    remove_prepared(nano.path)
    monkeypatch.setattr(preparing, "ALIGNMENT", 1)
    with pytest.raises(Phi4Error, match="compute something else, so nothing is kept"):
        prepare(nano, quietly)
    assert there(home) == set()


def test_leftovers_of_a_killed_one_are_no_preparation_and_go(package: OnnxPackage, home: Path) -> None:
    found = prepare(package, quietly)
    found.folder.rename(home / f"{found.folder.name}.part")
    (home / "other.part").mkdir()
    assert find_prepared(package.path) is None
    assert there(home) == {f"{found.folder.name}.part", "other.part"}
    assert there(home) != {prepare(package, quietly).folder.name} == there(home)


def test_broken_preparation_is_replaced(package: OnnxPackage, home: Path) -> None:
    found = prepare(package, quietly)
    (found.folder / "head.onnx").write_bytes(b"")
    with pytest.raises(InvalidArtifact, match=r"head\.onnx: is not there with the"):
        find_prepared(package.path)
    assert prepare(package, quietly) == find_prepared(package.path) == found


def test_older_preparation_of_the_same_folder_goes_when_the_new_one_is_whole(
    package: OnnxPackage, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = prepare(open_package(shutil.copytree(package.path, tmp_path / "other")), quietly)
    monkeypatch.setattr(prepared, "processor_identity", lambda: "another processor, same home")
    elsewhere = prepare(package, quietly)
    monkeypatch.undo()
    monkeypatch.setenv("PHI4_CACHE", str(home.parent))
    changed = exported_again(package)
    first = prepare(changed, quietly)
    second = prepare(exported_again(changed, 2), quietly)
    assert first != second
    assert there(home) == {each.folder.name for each in (other, elsewhere, second)}


def test_copy_of_a_package_shares_its_preparation_and_may_remove_it(
    package: OnnxPackage, home: Path, tmp_path: Path
) -> None:
    found = prepare(package, quietly)
    copy = Path(shutil.copytree(package.path, tmp_path / "copy"))
    assert find_prepared(copy) == found
    assert remove_prepared(copy) == [found.folder] and there(home) == set()
    assert remove_prepared(copy) == []


def test_removing_takes_those_of_other_runtimes_and_broken_ones_and_no_others(
    package: OnnxPackage, home: Path, tmp_path: Path
) -> None:
    old = prepare(package, quietly)
    changed = open_package(shutil.copytree(package.path, tmp_path / "other"))
    kept = prepare(exported_again(changed, 2), quietly)
    new = prepare(exported_again(package), quietly)
    shutil.copytree(new.folder, home / old.folder.name)  # as another runtime would have left it
    (new.folder / "prepared.json").write_text("{")
    assert remove_prepared(package.path) == sorted([old.folder, new.folder])
    assert there(home) == {kept.folder.name}


def test_full_disk_is_told_before_anything_is_written(
    package: OnnxPackage, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    monkeypatch.setattr(preparing, "store_session", lambda path, target: pytest.fail("it was begun"))
    with pytest.raises(InvalidRequest, match=r"preparing the package takes up to \d+ bytes, 1000 are free"):
        prepare(package, quietly)
    assert there(home) == set()


@pytest.mark.parametrize(("kind", "block_size"), [("fp32", 128), ("fp16", 128), ("int4", 16)])
def test_room_that_is_asked_for_suffices(
    kind: Kind, block_size: int, tmp_path: Path, write_package: Any
) -> None:
    config = tiny_config("mini", max_positions=512)
    precision = Precision(kind, block_size)
    options = {"precision": precision, "head": precision, "prefill": Precision("rows8")}
    package = open_package(write_package(tmp_path / "p", config, dict(tiny_tensors(config)), **options))
    found = prepare(package, quietly)
    for name in package.graphs:
        form = plain_form(name) if name in package.plain_graphs else name
        assert found.files[f"{form}.onnx.data"] <= preparing.GROWTH * package.loaded_bytes(name), name


@pytest.mark.parametrize("act", [lambda p: prepare(p, quietly), lambda p: remove_prepared(p.path)])
def test_one_process_at_a_time_writes(
    act: Callable[[OnnxPackage], object], package: OnnxPackage, home: Path
) -> None:
    home.mkdir(parents=True)
    with (home / "lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InvalidRequest, match="another phi4 prepare is at work"):
            act(package)
    act(package)


def test_user_without_a_home_is_told_which_variable_names_a_folder(
    package: OnnxPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "cache_folder", lambda: None)
    monkeypatch.setattr(prepared, "cache_folder", lambda: None)
    with pytest.raises(InvalidRequest, match="set PHI4_CACHE to a folder"):
        prepare(package, quietly)
    assert find_prepared(package.path) is None


def test_record_names_package_runtime_and_processor(package: OnnxPackage) -> None:
    found = prepare(package, quietly)
    raw = json.loads((found.folder / "prepared.json").read_text())
    assert raw["package"] == os.fspath(package.path)
    assert raw["basis"]["runtime"].startswith("1.") and raw["basis"]["processor"]
    listed = json.loads((package.path / "manifest.json").read_text())["files"]
    assert raw["basis"]["sources"]["head.onnx"] == listed["head.onnx"]["sha256"]
    assert not {"config.json", "tokenizer.json"} & set(raw["basis"]["sources"])
