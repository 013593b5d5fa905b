"""A measured server: started on a port of its own, watched with all its processes, ended by number. Linux."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.environments import NotHere
from harness.processes import end, last_words, memory_of, said_by_code, start

START_S = 300.0
"""A full-size model from a cold disk."""
STOP_S = 30.0
_LOOK_S = 0.05
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_ROLE = re.compile(r"\bworker\.(\w+) import\b")


class Server:
    """A running server; a context, which ends it.

    Args:
        label: What reports call it.
        command: Starts it; "{port}" stands for the port it is to listen at.
        variables: Its environment.
        log: Takes what it prints.
        ready: Path that answers 200 once it takes requests.

    Attributes:
        label: The same.
        address: Where it listens.
        facts: What is known of it, for the records.

    Raises:
        NotHere: It did not start.
    """

    def __init__(
        self, label: str, command: Sequence[str], variables: Mapping[str, str], log: Path, ready: str
    ) -> None:
        self.label = label
        self.address = ("127.0.0.1", free_port())
        self._log = log
        whole = [part.replace("{port}", str(self.address[1])) for part in command]
        self.facts: dict[str, Any] = {"command": " ".join(command)}
        log.parent.mkdir(parents=True, exist_ok=True)
        begun = time.perf_counter()
        self._process: subprocess.Popen[bytes] = start(whole, variables, log)
        try:
            self._wait(ready, begun + START_S)
        except BaseException:
            end(self._process)
            raise
        self.facts["start_s"] = round(time.perf_counter() - begun, 2)

    @property
    def pid(self) -> int:
        """Its first process."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ask it to end; one that does not is killed."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
        end(self._process)

    def processes(self) -> dict[str, int]:
        """Its processes by what they do; several of one kind are numbered."""
        found: dict[str, int] = {}
        for pid in family(self.pid):
            role = _role(pid)
            number = 2
            while role in found:
                role, number = f"{role.partition(' ')[0]} {number}", number + 1
            found[role] = pid
        return found

    def cpu_s(self) -> dict[str, float]:
        """Processor time its processes have taken, by kind."""
        found: dict[str, float] = {}
        for role, pid in self.processes().items():
            kind = role.partition(" ")[0]
            found[kind] = found.get(kind, 0.0) + cpu_s(pid)
        return found

    def resident_bytes(self) -> dict[str, int]:
        """Memory of each of its processes, mapped files included; shared pages count in each."""
        memory = {role: memory_of(pid) for role, pid in self.processes().items()}
        return {
            role: held["anonymous_bytes"] + held["file_bytes"]
            for role, held in memory.items()
            if {"anonymous_bytes", "file_bytes"} <= held.keys()
        }

    def page(self, path: str) -> str:
        """A page of it, whole.

        Raises:
            OSError: It does not answer.
        """
        return fetch(self.address, path)[1]

    def _wait(self, path: str, until: float) -> None:
        while time.perf_counter() < until:
            if self._process.poll() is not None:
                code = said_by_code(self._process.returncode)
                raise NotHere(f"{self.label} {code}: {last_words(self._log)}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if fetch(self.address, path)[0] == http.client.OK:
                    return
            time.sleep(_LOOK_S)
        raise NotHere(f"{self.label} did not answer within {START_S:.0f} s: {last_words(self._log)}")


def fetch(address: tuple[str, int], path: str) -> tuple[int, str]:
    """Status and body of a page.

    Raises:
        OSError: Nobody answers.
    """
    connection = http.client.HTTPConnection(*address, timeout=STOP_S)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", errors="replace")


def free_port() -> int:
    """A port nobody listens at just now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def family(pid: int) -> Iterator[int]:
    """A process and all that come from it."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text(encoding="ascii").split():
                yield from family(int(child))


def cpu_s(pid: int) -> float:
    """Processor time of a process with all its threads; 0 when it has gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    user, system = text.rpartition(")")[2].split()[11:13]
    return _TICK_S * (int(user) + int(system))


def _role(pid: int) -> str:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", errors="replace")
    except OSError:
        return "gone"
    found = _ROLE.search(line)
    return found[1] if found else "server"
