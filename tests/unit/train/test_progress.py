"""Logs hold every step once, pictures are drawn, and people get readable lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from phi4.train.progress import MetricsLog, Reporter, describe, draw_losses, read_metrics


def record(step: int, loss: float = 1.0) -> dict[str, Any]:
    return {
        "step": step,
        "total_steps": 100,
        "stage": "joint",
        "loss": loss,
        "tasks": {"sums": loss, "read": 2 * loss},
        "tokens_per_s": 1234.5,
        "rows_per_s": 6.0,
        "lr_factor": 1.0,
        "skipped": 0,
        "left_s": 3725.0,
    }


def test_resumed_log_has_every_step_once_and_survives_a_cut_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    for step in (10, 20, 30):
        log.write(record(step))
    log.close()
    with path.open("a") as file:
        file.write('{"step": 4')
    log = MetricsLog(path, 20)
    log.write(record(30, loss=9.0))
    log.close()
    assert [(line["step"], line["loss"]) for line in read_metrics(path)] == [(10, 1.0), (20, 1.0), (30, 9.0)]


def test_line_for_people_names_what_matters() -> None:
    line = describe({**record(40), "skipped": 2})
    for part in ("joint 40/100", "loss 1.0000", "sums 1.000", "1234 tok/s", "skipped 2", "left 1:02:05"):
        assert part in line
    assert "40/?" in describe({**record(40), "total_steps": None})


def test_picture_is_drawn_from_the_log(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "m.jsonl", 0)
    for step in range(1, 9):
        log.write(record(step, 1.0 / step))
    log.close()
    assert draw_losses(tmp_path / "m.jsonl", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert not draw_losses(tmp_path / "none.jsonl", tmp_path / "no.png")


def test_reporter_writes_all_outputs_and_plain_lines_without_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = Reporter(tmp_path, 0)
    reporter.say("hello")
    reporter.log(record(5))
    reporter.close()
    assert "hello" in capsys.readouterr().err.splitlines()[0]
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["step"] == 5
    assert (tmp_path / "loss.png").exists() and list((tmp_path / "tensorboard").iterdir())


def test_quiet_reporter_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(tmp_path, 0, quiet=True)
    reporter.say("hello")
    reporter.log(record(5))
    reporter.close()
    assert capsys.readouterr().err == ""
