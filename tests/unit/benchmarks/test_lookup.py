"""Answers with and without prompt lookup are compared token by token, and what changed is shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from lookup import Found, Parting, recording_gaps, table

from phi4.engine.runner import PackedSampling
from phi4.evals.scorers import Outcome
from phi4.onnx.serving import results

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "lookup.py"


def test_tasks_of_nano_are_compared_and_guesses_counted(tmp_path: Path) -> None:
    asked = ("--tasks", "sums,number_qa", "-n", "2", "--out", str(tmp_path))
    done = subprocess.run([sys.executable, str(SCRIPT), *asked], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    sums, numbers = json.loads((tmp_path / "lookup.json").read_text())["tasks"]
    assert (sums["task"], numbers["task"]) == ("sums", "number_qa")
    assert 0 < sums["accepted"] <= sums["drafted"] and sums["tokens"] > 40
    text = (tmp_path / "table.md").read_text()
    changed = sum(len(task["partings"]) for task in (sums, numbers))
    assert f"{changed} of 4 answers changed." in text and "| sums | 2 |" in text


def test_gap_is_that_of_the_two_best_at_each_draw() -> None:
    logits = np.array([0.5, 3.0, -1.0, 2.75], np.float32)
    with recording_gaps() as gaps:
        assert results.draw(logits, PackedSampling(), 7) == 1
    assert gaps == [0.25]
    results.draw(logits, PackedSampling(), 8)
    assert gaps == [0.25]


def test_changed_answers_are_shown_with_what_they_were_worth() -> None:
    right, wrong = Outcome(0, 1), Outcome(1, 1)
    found = Found("sums", 2, 50, 10, 8, ([right, wrong], [wrong, wrong]))
    found.partings.append(Parting(0, 3, 0.02, "4", "5"))
    text = table([found, Found("command", 1, 9, outcomes=([right], [right]))])
    assert "| sums | 2 | 1 | 1/0 | 0.0200 | -50.0 | 50 | 10 | 8 |" in text
    assert "| command | 1 | 0 | - | - | +0.0 | 9 | 0 | 0 |" in text
    assert text.endswith("1 of 3 answers changed.\n")
