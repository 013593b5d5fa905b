"""`phi4 export` calibrates with files or the small world, and refuses what has no use."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from phi4.cli import calibration
from phi4.cli.main import main
from phi4.onnx.build.options import METHODS, PRECISIONS
from phi4.onnx.package.description import read_description
from phi4.testing.tiny import write_tiny_checkpoint


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny text model with a context of 4,096; not to be changed."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_tiny_checkpoint(folder, "mini", max_positions=4096)
    return folder


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A file of texts."""
    path = tmp_path / "rows.jsonl"
    lines = [{"text": f"the red house has {number} windows on the hill"} for number in range(6)]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def test_choices_are_those_in_use() -> None:
    assert calibration.METHODS == METHODS and calibration.PRECISIONS == PRECISIONS


def test_calibrating_means_gptq_unless_said_otherwise(tiny: Path, rows: Path, tmp_path: Path) -> None:
    line = ["export", str(tiny), "--block-size", "32", "--calibrate", str(rows)]
    assert main([*line, "--out", str(tmp_path / "a")]) == 0
    assert main([*line, "--out", str(tmp_path / "b"), "--method", "weighted"]) == 0
    assert main([*line[:4], "--out", str(tmp_path / "c"), "--method", "search"]) == 0
    assert main([*line[:4], "--out", str(tmp_path / "d")]) == 0
    found = [read_description(tmp_path / name).method for name in "abcd"]
    assert found == ["gptq", "weighted", "search", "rtn"]


def test_small_world_calibrates_by_its_name(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "WORLD_ROWS", 6)
    assert main(["export", str(tiny), "--out", str(tmp_path / "p"), "--calibrate", "world"]) == 0
    assert read_description(tmp_path / "p").method == "gptq"


def test_sensitive_layers_get_eight_bits_and_are_told(
    tiny: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["export", str(tiny), "--out", str(tmp_path / "p"), "--calibrate", str(rows), "--sensitive", "40"]
    assert main([*line, "--block-size", "32", "--method", "search", "--json"]) == 0
    layers = dict(read_description(tmp_path / "p").layers)
    assert layers and set(layers.values()) == {"int8"}
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert notes[1] == f"8 bits: {', '.join(layers)}"


def test_layers_named_stand_before_measured_ones(tiny: Path, rows: Path, tmp_path: Path) -> None:
    line = ["export", str(tiny), "--out", str(tmp_path / "p"), "--calibrate", str(rows), "--sensitive", "100"]
    mine = "decoder.layers.0.mlp.gate_up_proj=fp16"
    assert main([*line, "--block-size", "32", "--layer", mine]) == 0
    layers = dict(read_description(tmp_path / "p").layers)
    assert next(iter(layers.items())) == ("decoder.layers.0.mlp.gate_up_proj", "fp16") and len(layers) > 1


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--sensitive", "10"], 2, "--sensitive: measured on texts; name them with --calibrate"),
        (["--method", "gptq"], 2, "method 'gptq' needs rows to calibrate with"),
        (["--calibrate", "world", "--method", "rtn"], 2, "--method rtn has no use for it"),
        (["--calibrate", "no-such.jsonl"], 2, "no-such.jsonl: cannot be read"),
        (["--layer", "nose=int8"], 2, "precision of layer 'nose': no layer is called so"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: list[str],
    code: int,
    words: str,
    tiny: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["export", str(tiny), "--out", str(tmp_path / "p"), *options]) == code
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "p").exists()


def test_folder_in_use_and_full_disk_are_noticed_before_rows_are_read(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["export", str(tiny), "--calibrate", "no-such.jsonl", "--sensitive", "10", "--out"]
    (tmp_path / "notes.txt").write_text("mine")
    assert main([*line, str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
    monkeypatch.setattr("phi4.checkpoint.room.shutil.disk_usage", lambda path: SimpleNamespace(free=10))
    assert main([*line, str(tmp_path / "p")]) == 2
    assert "10 are free there" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["decoder.layers.0.mlp.down_proj=int8", "a=b=fp16"])
def test_precision_of_a_layer_is_read_as_written(text: str) -> None:
    assert "=".join(calibration.layer_precision(text)) == text


@pytest.mark.parametrize("text", ["", "int8", "=int8", "x=int3", "x="])
def test_precision_of_a_layer_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="give NAME=PRECISION, one of int4, int8"):
        calibration.layer_precision(text)
