"""A measured program answers, fails, hangs or dies, and the driver knows which."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.processes import Ended, end, run_watched, start
from harness.workers import Worker, WorkerError
from peers.serving import Skipped, answer

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")

PROGRAM = """
import json, os, sys, time

def say(value):
    print(json.dumps(value), flush=True)

say({"value": {"versions": {"program": "1"}}})
for line in sys.stdin:
    request = json.loads(line)
    if request["op"] == "quit":
        break
    if request["op"] == "die":
        print("the last word", file=sys.stderr)
        os._exit(3)
    if request["op"] == "hang":
        time.sleep(60)
    if request["op"] == "refuse":
        say({"error": "not on this machine", "skipped": True})
    else:
        say({"value": request["args"]})
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """A program that says back what it is given."""
    running = Worker([sys.executable, "-c", PROGRAM], os.environ, tmp_path / "log")
    yield running
    running.close()
    assert not running.alive


def test_program_tells_versions_and_answers(worker: Worker) -> None:
    assert worker.facts["versions"] == {"program": "1"}
    assert worker.ask("echo", 10.0, ids=[1, 2]) == {"ids": [1, 2]}
    assert worker.memory()["peak_bytes"] > 1_000_000


def test_refusal_is_told_apart_and_leaves_the_program_running(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="not on this machine") as caught:
        worker.ask("refuse", 10.0)
    assert caught.value.skipped
    assert worker.ask("echo", 10.0, x=1) == {"x": 1}


def test_death_is_reported_with_its_last_words(worker: Worker) -> None:
    with pytest.raises(WorkerError, match=r"ended with status 3: the last word") as caught:
        worker.ask("die", 10.0)
    assert not caught.value.skipped and not worker.alive


def test_program_that_takes_too_long_is_ended(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="no answer within"):
        worker.ask("hang", 0.2)
    assert not worker.alive


def test_stopped_program_goes_on_when_resumed_and_can_be_ended_while_stopped(worker: Worker) -> None:
    worker.pause()
    worker.resume()
    assert worker.ask("echo", 10.0, x=1) == {"x": 1}
    worker.pause()


def test_program_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="ended with status 1"):
        Worker([sys.executable, "-c", "raise SystemExit(1)"], os.environ, tmp_path / "log")


def test_watched_command_tells_status_time_and_peak(tmp_path: Path) -> None:
    code = "import time; held = bytearray(80_000_000); time.sleep(0.3); raise SystemExit(4)"
    ended = run_watched([sys.executable, "-c", code], os.environ, tmp_path / "log")
    assert isinstance(ended, Ended) and ended.code == 4
    assert ended.seconds > 0.3 and ended.peak_bytes > 80_000_000


def test_ending_a_process_also_ends_its_children(tmp_path: Path) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    process = start([sys.executable, "-c", code], os.environ, tmp_path / "log")
    end(process)
    assert process.returncode == -9
    end(process)


def test_serving_answers_with_values_errors_and_refusals() -> None:
    class Peer:
        def double(self, x: int) -> dict[str, int]:
            return {"x": 2 * x}

        def refuse(self) -> None:
            raise Skipped("no such kernel")

        def _hidden(self) -> None:
            raise AssertionError("never called")

    def said(op: str, **args: object) -> dict[str, object]:
        found: dict[str, object] = json.loads(json.dumps(answer(Peer(), {"op": op, "args": args})))
        return found

    assert said("double", x=4) == {"value": {"x": 8}}
    assert said("double", y=4)["skipped"] is False
    assert said("refuse") == {"error": "no such kernel", "skipped": True}
    for unknown in ("_hidden", "nothing"):
        assert said(unknown)["skipped"] is True
