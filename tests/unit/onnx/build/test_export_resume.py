"""An export can be stopped anywhere and goes on with the graph it was at, to the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from phi4.checkpoint import Checkpoint, open_checkpoint
from phi4.errors import InvalidArtifact, InvalidRequest
from phi4.onnx import open_package
from phi4.onnx.build.export import export_package
from phi4.onnx.build.options import ExportOptions, exported_config
from phi4.onnx.build.plan import PlannedGraph, plan_graphs
from phi4.testing.tiny import write_tiny_checkpoint

GRAPHS = ("decoder", "prefill", "head", "vision", "subsampling", "speech")
INT4 = ExportOptions("int4", fast=True)


class Stopped(Exception):
    """What a test stops an export with."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The whole tiny model; not to be changed."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_tiny_checkpoint(folder, max_positions=512)
    return open_checkpoint(folder)


@pytest.fixture(scope="module")
def whole(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of an undisturbed export with `INT4`."""
    return contents(export_package(checkpoint, tmp_path_factory.mktemp("whole") / "p", INT4))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def graphs_of(checkpoint: Checkpoint, options: ExportOptions) -> tuple[PlannedGraph, ...]:
    return plan_graphs(exported_config(checkpoint.config, options), options)


def source_bytes(checkpoint: Checkpoint, graph: PlannedGraph) -> int:
    return sum(checkpoint.entries[name].nbytes for name in graph.shapes)


def stopping_at(nbytes: int) -> Callable[[int, int], None]:
    def told(done: int, total: int) -> None:
        if done >= nbytes:
            raise Stopped

    return told


def middle_of(checkpoint: Checkpoint, name: str, options: ExportOptions = INT4) -> int:
    """Bytes that have been read when half of a graph has."""
    before = 0
    for graph in graphs_of(checkpoint, options):
        if graph.name == name:
            return before + source_bytes(checkpoint, graph) // 2
        before += source_bytes(checkpoint, graph)
    raise KeyError(name)


def stop(checkpoint: Checkpoint, folder: Path, name: str, options: ExportOptions = INT4) -> Path:
    """An export that ended in the middle of a graph."""
    with pytest.raises(Stopped):
        export_package(checkpoint, folder, options, stopping_at(middle_of(checkpoint, name, options)))
    return folder


def identities(folder: Path) -> dict[str, tuple[int, int]]:
    """What changes when a file is written again, even with the same bytes."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("*.onnx*")}


@pytest.mark.parametrize("graph", GRAPHS)
def test_export_stopped_in_a_graph_goes_on_with_it(
    graph: str, checkpoint: Checkpoint, whole: dict[str, bytes], tmp_path: Path
) -> None:
    folder = stop(checkpoint, tmp_path / "p", graph)
    finished = identities(folder)
    before = GRAPHS[: GRAPHS.index(graph)]
    assert set(finished) == {f"{name}.onnx{end}" for name in before for end in ("", ".data")}
    with pytest.raises(InvalidArtifact):
        open_package(folder)
    export_package(checkpoint, folder, INT4)
    assert contents(folder) == whole
    assert {name: identities(folder)[name] for name in finished} == finished


def test_export_whose_process_was_killed_goes_on(
    checkpoint: Checkpoint, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """Nothing is tidied up then: a half-written file stays behind under its temporary name."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom phi4.checkpoint import open_checkpoint\n"
        "from phi4.onnx.building import ExportOptions, export_package\n"
        "told = lambda done, total: os._exit(9) if done >= int(sys.argv[3]) else None\n"
        "options = ExportOptions('int4', fast=True)\n"
        "export_package(open_checkpoint(sys.argv[1]), Path(sys.argv[2]), options, told)\n"
    )
    folder = tmp_path / "p"
    line = [
        sys.executable,
        "-c",
        code,
        str(checkpoint.path),
        str(folder),
        str(middle_of(checkpoint, "vision")),
    ]
    assert subprocess.run(line, timeout=60, check=False).returncode == 9
    assert (folder / "vision.onnx.data.part").exists()
    export_package(checkpoint, folder, INT4)
    assert contents(folder) == whole


def test_export_stopped_while_tensors_are_read_goes_on(
    checkpoint: Checkpoint, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Checkpoint.read

    def failing(self: Checkpoint, name: str) -> Any:
        if name == "decoder.layers.1.mlp.down_proj.weight":
            raise InvalidArtifact("the disk was pulled out")
        return read(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "read", failing)
        with pytest.raises(InvalidArtifact, match="pulled out"):
            export_package(checkpoint, tmp_path / "p", INT4)
    assert not list((tmp_path / "p").glob("*.part"))
    assert contents(export_package(checkpoint, tmp_path / "p", INT4)) == whole


@pytest.mark.parametrize("damage", ["byte", "cut", "gone"])
@pytest.mark.parametrize("file", ["decoder.onnx.data", "head.onnx"])
def test_finished_graph_that_was_damaged_is_written_again(
    file: str, damage: str, checkpoint: Checkpoint, whole: dict[str, bytes], tmp_path: Path
) -> None:
    folder = stop(checkpoint, tmp_path / "p", "vision")
    data = bytearray((folder / file).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / file).unlink() if damage == "gone" else (folder / file).write_bytes(
        data if damage == "byte" else data[:-1]
    )
    before = identities(folder)
    export_package(checkpoint, folder, INT4)
    assert contents(folder) == whole
    again = {
        name for name, identity in identities(folder).items() if before.get(name) not in (None, identity)
    }
    assert again - {file} == {f"{file.partition('.')[0]}.onnx{end}" for end in ("", ".data")} - {file}


OTHERS = {
    "precision": ExportOptions("int8", fast=True),
    "part": ExportOptions("int4", {"vision": "fp16"}, fast=True),
    "modalities": ExportOptions("int4", modalities=("text", "vision"), fast=True),
    "merge": ExportOptions("int4", merge_adapter="speech", fast=True),
    "form": ExportOptions("int4"),
    "slot": ExportOptions("int4", fast=True, user_slot=False),
    "block": ExportOptions("int4", fast=True, block_size=32),
    "context": ExportOptions("int4", fast=True, context=100),
    "cache": ExportOptions("int4", fast=True, cache="fp16"),
}


@pytest.mark.parametrize("options", OTHERS.values(), ids=OTHERS)
def test_unfinished_export_with_other_options_is_not_gone_on_with(
    options: ExportOptions, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = stop(checkpoint, tmp_path / "p", "head")
    before = contents(folder)
    with pytest.raises(InvalidRequest, match="another model or with other options; delete the folder"):
        export_package(checkpoint, folder, options)
    assert contents(folder) == before


def test_unfinished_export_of_another_model_is_not_gone_on_with(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = stop(checkpoint, tmp_path / "p", "head")
    write_tiny_checkpoint(tmp_path / "other", max_positions=512, seed=1)
    with pytest.raises(InvalidRequest, match="another model"):
        export_package(open_checkpoint(tmp_path / "other"), folder, INT4)


def test_record_of_an_unfinished_export_that_is_broken_is_refused(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = stop(checkpoint, tmp_path / "p", "head")
    (folder / ".export.json").write_text("{")
    with pytest.raises(InvalidArtifact, match=r"\.export\.json"):
        export_package(checkpoint, folder, INT4)


def test_folder_of_an_export_may_be_named_from_elsewhere(
    checkpoint: Checkpoint, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped export goes on from another working directory, with relative paths."""
    folder = stop(checkpoint, tmp_path / "p", "head")
    monkeypatch.chdir(tmp_path)
    relative = open_checkpoint(os.path.relpath(checkpoint.path))
    export_package(relative, Path("p"), INT4)
    assert contents(folder) == whole


def test_export_that_goes_on_needs_room_for_the_rest_alone(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = sum(graph.room_bytes for graph in graphs_of(checkpoint, INT4))
    folder = stop(checkpoint, tmp_path / "p", "speech")
    usage = SimpleNamespace(free=free)  # too little for a whole export, which needs room for other files too
    monkeypatch.setattr("phi4.onnx.build.export.shutil.disk_usage", lambda path: usage)
    with pytest.raises(InvalidRequest, match=f"{free} are free there"):
        export_package(checkpoint, tmp_path / "q", INT4)
    open_package(export_package(checkpoint, folder, INT4)).verify()


def test_progress_of_an_export_that_goes_on_counts_what_is_there(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = stop(checkpoint, tmp_path / "p", "vision")
    told: list[tuple[int, int]] = []
    export_package(checkpoint, folder, INT4, lambda done, total: told.append((done, total)))
    sizes = [source_bytes(checkpoint, graph) for graph in graphs_of(checkpoint, INT4)]
    assert [done for done, _ in told[:4]] == [0, sizes[0], sum(sizes[:2]), sum(sizes[:3])]
    assert told[-1] == (sum(sizes), sum(sizes))
