"""A measured program as the driver sees it: ask it, stop it while others are measured, end it.

A program that waits is stopped (SIGSTOP), so threads that spin take nothing from whoever has its turn.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.processes import end, last_words, memory_of, said_by_code, start

HELLO_S = 300.0
"""Importing torch from a cold disk takes a minute."""
GOODBYE_S = 10.0


class WorkerError(Exception):
    """An operation that gave no figure.

    Attributes:
        skipped: It cannot be measured there, which is no failure.
    """

    def __init__(self, reason: str, *, skipped: bool = False) -> None:
        super().__init__(reason)
        self.skipped = skipped


class Worker:
    """A running program that answers requests (`peers/serving.py`).

    Args:
        command: Starts it.
        variables: Its environment.
        log: Takes what it prints.

    Attributes:
        started: Clock when it was started, before anything was imported.
        facts: What is known of it: command, versions, what `load` and `warm_up` told.
        warmed: Labels of series that have been run without counting.

    Raises:
        WorkerError: It did not start.
    """

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], log: Path) -> None:
        self._log, self._rest = log, b""
        self.started = time.perf_counter()
        self._process: subprocess.Popen[bytes] = start(command, variables, log, piped=True)
        self.facts: dict[str, Any] = {"command": " ".join(command)}
        self.warmed: set[str] = set()
        try:
            self.facts |= self._answer(HELLO_S)
        except BaseException:
            self.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def ask(self, operation: str, timeout_s: float, **args: Any) -> dict[str, Any]:
        """Have it do something and wait.

        Raises:
            WorkerError: It failed, died, or took longer than `timeout_s`; then it is of no use any more.
        """
        self._send({"op": operation, "args": args})
        return self._answer(timeout_s)

    def memory(self) -> dict[str, int]:
        """See `memory_of`."""
        return memory_of(self._process.pid)

    def pause(self) -> None:
        """Stop it until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End it, gently if it listens."""
        if self.alive:
            self.resume()
            try:
                self._send({"op": "quit", "args": {}})
                self._process.wait(GOODBYE_S)
            except (WorkerError, subprocess.TimeoutExpired):
                pass
        end(self._process)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue

    def _signal(self, number: signal.Signals) -> None:
        if self.alive:
            os.kill(self._process.pid, number)

    def _send(self, request: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._death()) from None

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._line(timeout_s))
        if "error" in answer:
            raise WorkerError(answer["error"], skipped=bool(answer["skipped"]))
        value: dict[str, Any] = answer["value"]
        return value

    def _line(self, timeout_s: float) -> bytes:
        assert self._process.stdout is not None
        pipe, until = self._process.stdout.fileno(), time.monotonic() + timeout_s
        while b"\n" not in self._rest:
            left = until - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                end(self._process)
                raise WorkerError(f"no answer within {timeout_s:.0f} s")
            piece = os.read(pipe, 1 << 16)
            if not piece:
                raise WorkerError(self._death())
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _death(self) -> str:
        """Why there is no answer, once it has ended."""
        try:
            self._process.wait(GOODBYE_S)
        except subprocess.TimeoutExpired:
            end(self._process)
        return f"the program {said_by_code(self._process.returncode)}: {last_words(self._log)}"
