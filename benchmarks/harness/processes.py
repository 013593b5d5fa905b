"""Child processes: how much memory they take, what they last said, and ending them for sure. Linux only."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import killpg
from pathlib import Path

_POLL_S = 0.05
_FIELDS = {"VmHWM": "peak_bytes", "RssAnon": "anonymous_bytes", "RssFile": "file_bytes"}


@dataclass(frozen=True)
class Ended:
    """A command that has run.

    Attributes:
        code: Exit status; negative = the signal that ended it.
        seconds: How long it took.
        peak_bytes: The most memory it had resident, mapped files included.
    """

    code: int
    seconds: float
    peak_bytes: int


def memory_of(pid: int) -> dict[str, int]:
    """Resident memory of a process: its peak, and what is private and what mapped from files now."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {_FIELDS[key]: 1024 * int(rest.split()[0]) for key, _, rest in pairs if key in _FIELDS}


def available_bytes() -> int:
    """Memory that could be taken now without anything being swapped out or killed."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


def start(
    command: Sequence[str], variables: Mapping[str, str], log: Path, *, piped: bool = False
) -> subprocess.Popen[bytes]:
    """Start a command in the log's folder, in a group of its own, so that Ctrl-C reaches the driver alone.

    Args:
        command: Program and arguments.
        variables: Its whole environment.
        log: Takes what it says, behind what is there.
        piped: Talk with it through standard input and output; else both are closed and logged.
    """
    with log.open("ab") as file:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else file,
            stderr=file,
            env=dict(variables),
            cwd=log.parent,
            start_new_session=True,
        )


def run_watched(command: Sequence[str], variables: Mapping[str, str], log: Path) -> Ended:
    """Run a command to its end and watch its memory; an interrupt here ends it too."""
    begun = time.perf_counter()
    process, peak = start(command, variables, log), 0
    try:
        _be_killed_first(process.pid)
        while process.poll() is None:
            peak = max(peak, memory_of(process.pid).get("peak_bytes", 0))
            time.sleep(_POLL_S)
    finally:
        end(process)
    return Ended(process.returncode, time.perf_counter() - begun, peak)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it has started; one that is stopped too."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_words(log: Path, lines: int = 3) -> str:
    """The end of a log on one line."""
    try:
        text = log.read_bytes()[-20_000:].decode("utf-8", errors="replace")
    except OSError:
        return "no log"
    kept = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return " | ".join(kept[-lines:])[-600:] or "nothing was logged"


def said_by_code(code: int) -> str:
    """An exit status in words."""
    if code == -signal.SIGKILL:
        return "was killed, most likely for want of memory"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"


def _be_killed_first(pid: int) -> None:
    try:
        Path(f"/proc/{pid}/oom_score_adj").write_text("800", encoding="ascii")
    except OSError:
        return
