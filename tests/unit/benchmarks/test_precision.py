"""The precision table is of the packages whose speed is measured, pairs items, and mixes no two models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness.artefacts import ARTEFACTS, PROFILES
from precision import FORMS, Cell, Cells, identity, table

from phi4.checkpoint import open_checkpoint
from phi4.testing.tiny import write_tiny_checkpoint

SETTING = {"model": "nano", "weights": "abc"}


def test_profiles_are_exported_as_the_benchmark_of_speed_exports_them() -> None:
    for profile in ("fast", "lean"):
        assert FORMS[f"profile {profile}"] == PROFILES[profile]
        command = ARTEFACTS[f"mini-{profile}"].command
        assert command[-len(PROFILES[profile]) :] == PROFILES[profile]


def test_cell_is_kept_at_once_and_found_by_form_task_and_count(tmp_path: Path) -> None:
    where = tmp_path / "cells.json"
    Cells(where, SETTING).put("int4", "sums", 2, Cell([0, 1], [1, 1], "0.1.0 (abc)"))
    kept = Cells(where, SETTING)
    assert kept.has("int4", "sums", 2) and not kept.has("int4", "sums", 3) and not kept.has("int8", "sums", 2)
    assert kept.get("int4", "sums", 2) == Cell([0, 1], [1, 1], "0.1.0 (abc)")
    assert [path.name for path in tmp_path.iterdir()] == ["cells.json"]


OTHER = {"setting": {**SETTING, "weights": "other"}, "cells": {}}


@pytest.mark.parametrize("content", [OTHER, {"a/b/1": {}}])
def test_cells_of_another_model_are_refused(tmp_path: Path, content: dict[str, object]) -> None:
    (tmp_path / "cells.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit, match="of other weights; delete it"):
        Cells(tmp_path / "cells.json", SETTING)


def test_identity_is_of_weights_config_and_tokenizer(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "one")
    write_tiny_checkpoint(tmp_path / "two")
    one, two = (identity(open_checkpoint(tmp_path / name)) for name in ("one", "two"))
    assert one == two
    changed = tmp_path / "two" / "tokenizer.json"
    changed.write_text(changed.read_text() + "\n")
    assert identity(open_checkpoint(tmp_path / "two")) != one


def test_difference_of_right_or_wrong_items_is_paired() -> None:
    """Both sides fail on the same half of the items but one: the interval is of that one, not of the half."""
    halves = [0, 1] * 50
    cells = {
        "fp32": {"sums": Cell(halves, [1] * 100, "0.1.0 (a)")},
        "int4": {"sums": Cell([1, *halves[1:]], [1] * 100, "0.1.0 (b)")},
    }
    text = table(cells, {"fp32": 4.0, "int4": 1.0}, 100)
    assert "| sums | 50.0% | -1.0 (-3.0 to +0.0) |" in text
    assert "| package, MB | 4.0 | 1.0 |" in text
    assert "| int4 | `--precision int4` | 0.1.0 (b) |" in text
