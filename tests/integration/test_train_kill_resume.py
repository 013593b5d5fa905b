"""A run killed at random moments and resumed ends in the same bytes as one left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STEPS = 400
STOPPED = 130


def command(folder: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "phi4", "train", "smoke", "--out", str(folder), "--json"),
        *("--steps", str(STEPS), "--workers", "1", "--threads", "1"),
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def digests(folder: Path) -> dict[str, str]:
    manifest = json.loads((folder / "checkpoints" / f"step-{STEPS:08d}" / "manifest.json").read_text())
    return {name: entry["sha256"] for name, entry in manifest["files"].items() if name != "run.json"}


def logged_steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of the run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("straight")
    finish(folder)
    return digests(folder)


def finish(folder: Path) -> None:
    subprocess.run(command(folder), env=environment(), check=True, timeout=120, stdout=subprocess.DEVNULL)


def kill_often(folder: Path, kills: int, rng: random.Random) -> int:
    """Kill -9 up to `kills` times; returns how many of them hit a living run.

    Every third time at a random moment from the start of the process on, start-up included; else a
    random while after new progress.
    """
    hits = 0
    for number in range(kills):
        process = subprocess.Popen(
            command(folder), env=environment(), start_new_session=True, stdout=subprocess.DEVNULL
        )
        before = committed(folder)
        if number % 3 == 2:
            time.sleep(rng.random() * 2.0)
        else:
            while process.poll() is None and committed(folder) == before:
                time.sleep(0.002)
            time.sleep(rng.random() * 0.25)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            hits += 1
        process.wait()
    return hits


def committed(folder: Path) -> int:
    names = [path.name for path in (folder / "checkpoints").glob("step-*")]
    return max((int(name.removeprefix("step-")) for name in names), default=0)


def assert_killed_run_equals(expected: dict[str, str], folder: Path, kills: int, seed: int) -> None:
    assert kill_often(folder, kills, random.Random(seed)) == kills, "the run ended before the last kill"
    assert 0 < committed(folder) < STEPS
    finish(folder)
    assert digests(folder) == expected
    assert logged_steps(folder) == sorted(set(logged_steps(folder))) and logged_steps(folder)[-1] == STEPS


def test_run_killed_four_times_ends_in_the_same_bytes(expected: dict[str, str], tmp_path: Path) -> None:
    assert_killed_run_equals(expected, tmp_path, kills=4, seed=1)


@pytest.mark.slow
def test_runs_killed_twenty_times_end_in_the_same_bytes(expected: dict[str, str], tmp_path: Path) -> None:
    for round_seed in range(4):
        assert_killed_run_equals(expected, tmp_path / str(round_seed), kills=5, seed=round_seed)


def test_termination_signal_saves_and_ends_cleanly(expected: dict[str, str], tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path / "stopped"), env=environment(), stdout=subprocess.PIPE, text=True
    )
    while not committed(tmp_path / "stopped"):
        time.sleep(0.002)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == STOPPED
    facts = json.loads(output)
    assert not facts["finished"] and facts["steps"] == committed(tmp_path / "stopped")
    finish(tmp_path / "stopped")
    assert digests(tmp_path / "stopped") == expected
