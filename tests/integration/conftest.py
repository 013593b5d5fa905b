"""One server on the built-in nano for all tests that speak to it over HTTP."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

START_S = 120
STOP_S = 60


@dataclass
class RunningServer:
    """A `phi4 serve` in a process of its own.

    Attributes:
        url: Where it answers, without `/v1`.
        process: The process.
        log: Lines of its standard error so far.
        readers: Threads that read what it writes.
    """

    url: str
    process: subprocess.Popen[str]
    log: list[str]
    readers: list[threading.Thread]

    def children(self) -> dict[int, str]:
        """Processes it has started, by id, and what they run."""
        found = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                    if parent == self.process.pid:
                        found[int(folder.name)] = (folder / "cmdline").read_text()
                except (OSError, ValueError):
                    continue
        return found

    @property
    def engine_pid(self) -> int:
        """Its engine process."""
        return next(pid for pid, runs in self.children().items() if "worker.engine" in runs)

    def stop(self) -> int:
        """Ask it to drain, wait for its end, return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_S)
        self.close()
        return code

    def close(self) -> None:
        """Read to the end what it wrote; it has ended."""
        for reader in self.readers:
            reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            stream.close()


def start_server(*options: str) -> RunningServer:
    """Start a server on a free port and wait until it answers."""
    command = [sys.executable, "-m", "phi4", "serve", "--port", "0", *options]
    variables = {
        **os.environ,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "PYTHONUNBUFFERED": "1",
    }
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables
    )
    assert process.stdout is not None and process.stderr is not None
    log: list[str] = []
    errors = threading.Thread(target=lambda: log.extend(process.stderr), daemon=True)
    errors.start()
    watchdog = threading.Timer(START_S, process.kill)
    watchdog.start()
    line = process.stdout.readline()
    watchdog.cancel()
    found = re.search(r"(http://\S+)/v1", line)
    if found is None:
        process.kill()
        process.wait()
        raise AssertionError(f"the server did not start: {line!r} {log}")
    rest = threading.Thread(target=process.stdout.read, daemon=True)
    rest.start()
    return RunningServer(found[1], process, log, [errors, rest])


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """The shared server."""
    running = start_server("--model", "nano")
    yield running
    code = running.stop()
    assert code == 0, running.log[-20:]


@pytest.fixture(scope="module")
def another_server() -> Iterator[Callable[..., RunningServer]]:
    """`another_server("--api-key", "...")`: a server for the tests of one file."""
    running: list[RunningServer] = []

    def start(*options: str) -> RunningServer:
        running.append(start_server(*options))
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None:
            one.stop()
        else:
            one.close()


@pytest.fixture(scope="session")
def media(repository: Path) -> Path:
    """Pictures and recordings nano has never seen."""
    return repository / "examples" / "media"
