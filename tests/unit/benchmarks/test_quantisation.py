"""The comparison of 4-bit methods measures what it says, goes on when stopped, and mixes no two models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from make_random_checkpoint import model_config, write_checkpoint

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "quantisation.py"
CELLS = ("rtn, block 32", "gptq, block 32", "search, mixed", "int8")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with random weights; not to be changed."""
    folder = tmp_path_factory.mktemp("model") / "quick"
    write_checkpoint(folder, model_config("mini", "quick"))
    return folder


def run(model: Path, folder: Path, cells: tuple[str, ...], *options: str) -> subprocess.CompletedProcess[str]:
    rows = ("--random-tokens", "48", "--calibrate-rows", "6", "--judge-rows", "2", *options)
    places = ("--model", str(model), "--scratch", str(folder / "scratch"), "--out", str(folder / "out"))
    command = [sys.executable, str(SCRIPT), *places, *rows, "--cells", ";".join(cells)]
    return subprocess.run(command, capture_output=True, text=True, timeout=250)


def test_methods_are_compared_in_a_table_and_layers_in_a_picture(model: Path, tmp_path: Path) -> None:
    first = run(model, tmp_path, CELLS[:2])
    assert first.returncode == 0, first.stderr
    again = run(model, tmp_path, CELLS)
    assert "gptq, mixed" not in again.stderr and "rtn, block 32" not in again.stderr, "measured already"
    found = json.loads((tmp_path / "out" / "cells.json").read_text())
    cells = found["cells"]
    assert tuple(cells) == CELLS and len(found["sensitivity"]) == 8
    assert all(cell["positions"] == 96 for cell in cells.values())
    assert cells["int8"]["nats"] < 0.1 * cells["rtn, block 32"]["nats"]
    assert cells["search, mixed"]["eight_bit_layers"] > 0 == cells["int8"]["eight_bit_layers"]
    table = (tmp_path / "out" / "table.md").read_text()
    assert tuple(line.split(" | ")[0][2:] for line in table.splitlines()[2:6]) == CELLS
    assert "of 8" in (tmp_path / "out" / "sensitivity.svg").read_text()
    assert not (tmp_path / "scratch" / "package").exists()


def test_other_rows_are_not_put_into_the_same_table(model: Path, tmp_path: Path) -> None:
    assert run(model, tmp_path, CELLS[:1], "--sensitivity-tokens", "0").returncode == 0
    assert not (tmp_path / "out" / "sensitivity.svg").exists()
    other = run(model, tmp_path, CELLS[:1], "--sensitivity-tokens", "0", "--judge-rows", "3")
    assert other.returncode == 1 and "of other weights or rows; delete it" in other.stderr


def test_unknown_cell_is_named(model: Path, tmp_path: Path) -> None:
    found = run(model, tmp_path, ("awq",))
    assert found.returncode == 1 and "no such cell: 'awq'; there are rtn, block 128;" in found.stderr
