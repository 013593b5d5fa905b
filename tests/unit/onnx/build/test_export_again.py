"""An export into a folder that has one: there already, of something else, or replaced where that is asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from phi4.checkpoint import Checkpoint, open_checkpoint
from phi4.errors import InvalidArtifact, InvalidRequest
from phi4.onnx import open_package
from phi4.onnx.build.export import already_exported, check_export, export_package
from phi4.onnx.build.options import ExportOptions
from phi4.onnx.build.unfinished import STATE_NAME
from phi4.testing.tiny import write_tiny_checkpoint

INT8, FP32 = ExportOptions("int8"), ExportOptions("fp32")


class Stopped(Exception):
    """What a test stops an export with."""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """The tiny text model."""
    write_tiny_checkpoint(tmp_path / "m", "mini", max_positions=512)
    return open_checkpoint(tmp_path / "m")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def states(folder: Path) -> dict[str, tuple[int, int]]:
    """What changes when a file is written again, even with the same bytes."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


def stop(done: int, total: int) -> None:
    if done == total:  # the head is read last; the decoder is finished then
        raise Stopped


def silent(done: int, total: int) -> None:
    pytest.fail("something was exported")


def test_package_that_is_there_already_is_left_as_it_is(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    assert not already_exported(checkpoint, folder, INT8)
    export_package(checkpoint, folder, INT8)
    before = states(folder)
    assert already_exported(checkpoint, folder, INT8)
    assert export_package(checkpoint, folder, INT8, silent) == folder
    assert states(folder) == before


def test_record_of_a_whole_package_names_no_place(checkpoint: Checkpoint, tmp_path: Path) -> None:
    record = (export_package(checkpoint, tmp_path / "p", INT8) / STATE_NAME).read_text()
    assert set(json.loads(record)) == {"finished"} and str(tmp_path) not in record


def test_package_that_was_damaged_since_is_told_and_not_taken_for_whole(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    data = export_package(checkpoint, tmp_path / "p", INT8) / "head.onnx.data"
    data.write_bytes(data.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(InvalidArtifact, match=r"head\.onnx\.data.*; write it anew \(--force\)"):
        export_package(checkpoint, tmp_path / "p", INT8)
    export_package(checkpoint, tmp_path / "p", INT8, force=True)
    assert open_package(tmp_path / "p").verify()


def reseed(checkpoint: Checkpoint) -> None:
    write_tiny_checkpoint(checkpoint.path, "mini", max_positions=512, seed=1)


def edit(name: str) -> Callable[[Checkpoint], None]:
    def apply(checkpoint: Checkpoint) -> None:
        path = checkpoint.path / name
        raw = json.loads(path.read_text())
        change = {"config.json": {"rms_norm_eps": 1e-3}}  # the tokenizer is spelt in another way
        path.write_text(json.dumps(raw | change.get(name, {}), indent=3))

    return apply


def template(checkpoint: Checkpoint) -> None:
    (checkpoint.path / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')


@pytest.mark.parametrize(
    "change", [reseed, edit("config.json"), edit("tokenizer.json"), template], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("whole", [True, False])
def test_export_of_another_model_is_neither_gone_on_with_nor_taken_for_the_same(
    whole: bool, change: Callable[[Checkpoint], None], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = tmp_path / "p"
    if whole:
        export_package(checkpoint, folder, INT8)
    else:
        with pytest.raises(Stopped):
            export_package(checkpoint, folder, INT8, stop)
    before = contents(folder)
    change(checkpoint)
    other = open_checkpoint(checkpoint.path)
    says = f"holds {'a finished' if whole else 'an unfinished'} export of another model or with other options"
    with pytest.raises(InvalidRequest, match=rf"{says}; .* replace it \(--force\)"):
        export_package(other, folder, INT8)
    assert contents(folder) == before
    export_package(other, folder, INT8, force=True)
    assert contents(folder) == contents(export_package(other, tmp_path / "fresh", INT8))


def test_replaced_package_stays_until_the_new_one_is_whole(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = export_package(checkpoint, tmp_path / "p", INT8)
    before = states(folder)
    with pytest.raises(Stopped):
        export_package(checkpoint, folder, FP32, stop, force=True)
    assert states(folder) == before and (tmp_path / ".p.new" / STATE_NAME).is_file()
    begun = {name: state for name, state in states(tmp_path / ".p.new").items() if name.endswith(".data")}
    export_package(checkpoint, folder, FP32, force=True)
    assert set(begun) == {"decoder.onnx.data"} and begun.items() <= states(folder).items()
    assert open_package(folder).precision["decoder"] == "fp32" and open_package(folder).verify()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "p"]


def test_what_a_stopped_replacement_left_of_another_export_is_begun_anew(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = export_package(checkpoint, tmp_path / "p", INT8)
    with pytest.raises(Stopped):
        export_package(checkpoint, folder, FP32, stop, force=True)
    export_package(checkpoint, folder, INT8, force=True)
    assert contents(folder) == contents(export_package(checkpoint, tmp_path / "fresh", INT8))


def test_force_makes_a_folder_that_is_not_there_and_replaces_one_written_elsewhere(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = export_package(checkpoint, tmp_path / "deep" / "p", INT8, force=True)
    (folder / STATE_NAME).unlink()  # as a package that was fetched
    with pytest.raises(InvalidRequest, match=r"is not empty; .* \(--force replaces a package\)"):
        export_package(checkpoint, folder, FP32)
    export_package(checkpoint, folder, FP32, force=True)
    assert open_package(folder).precision["decoder"] == "fp32"


def test_force_replaces_nothing_but_packages(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = export_package(checkpoint, tmp_path / "p", INT8)
    (folder / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for place, says in (
        (folder, "holds 'notes.txt', which no export writes, and --force replaces packages alone"),
        (checkpoint.path, "holds 'model.safetensors', which no export writes"),
        (tmp_path / "file", "is a file"),
    ):
        for attempt in (check_export, export_package):
            with pytest.raises(InvalidRequest, match=says):
                attempt(checkpoint, place, FP32, force=True)  # type: ignore[operator]
    assert (folder / "notes.txt").is_file() and (checkpoint.path / "config.json").is_file()
    small = tmp_path / "small"
    small.mkdir()
    shutil.copy(checkpoint.path / "config.json", small)
    with pytest.raises(InvalidRequest, match="holds no package"):
        check_export(checkpoint, small, FP32, force=True)


def test_folder_of_which_a_kill_left_the_first_record_half_written_is_empty(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / f"{STATE_NAME}.part").write_text('{"ident')
    check_export(checkpoint, tmp_path / "p", INT8)
    folder = export_package(checkpoint, tmp_path / "p", INT8)
    assert contents(folder) == contents(export_package(checkpoint, tmp_path / "q", INT8))


def test_check_refuses_early_and_writes_nothing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    for folder, options, says in (
        (tmp_path / "used", INT8, "is not empty"),
        (tmp_path / "p", ExportOptions("int8", sensitive=10), "choose precision int4"),
        (tmp_path / "p", ExportOptions(sensitive=0), "must be above 0, up to 100"),
        (tmp_path / "p", ExportOptions(context=0), "context 0"),
    ):
        with pytest.raises(InvalidRequest, match=says):
            check_export(checkpoint, folder, options)
    check_export(checkpoint, tmp_path / "p", ExportOptions(sensitive=10))
    assert not (tmp_path / "p").exists()
