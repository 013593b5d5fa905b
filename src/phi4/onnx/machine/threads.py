"""How many threads to compute with: the CPUs this process may really use.

ONNX Runtime by itself counts the cores of the machine, not those of the container, and then loses half of
its speed waiting for threads that do not run. Here the affinity of the process and the CPU quota of
its control groups (version 1 and 2, the tightest of a group and its parents) decide; the variable
`PHI4_THREADS` or an argument overrides both.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from phi4.errors import InvalidRequest
from phi4.onnx.machine.cgroups import group_folders, read_text

VARIABLE = "PHI4_THREADS"
MAX_THREADS = 1024


def thread_count(asked: int | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Threads to compute with.

    Args:
        asked: The caller's wish; None = the variable `PHI4_THREADS`, else as many as there are CPUs for us.
        environment: Where the variable stands; None = this process's own.

    Raises:
        InvalidRequest: The wish is no whole number from 1 to 1024.
    """
    if asked is not None:
        return _checked("threads", asked)
    text = (os.environ if environment is None else environment).get(VARIABLE, "").strip()
    if not text:
        return available_cpus()
    return _checked(VARIABLE, int(text) if text.isdecimal() else text)


def _checked(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_THREADS:
        raise InvalidRequest(
            f"{name} is {value!r}; give a whole number from 1 to {MAX_THREADS}, or leave it out"
        )
    return value


def available_cpus(root: Path = Path("/"), affinity: int | None = None) -> int:
    """CPUs this process may use, at least 1.

    A quota of one and a half CPUs counts as two: both threads then rest together for part of each period.

    Args:
        root: Where `proc` and `sys` are found.
        affinity: CPUs the process may be scheduled on; None = ask the system.
    """
    cpus = scheduled_cpus() if affinity is None else affinity
    return max(1, min([cpus, *(math.ceil(quota) for quota in _quotas(root))]))


def scheduled_cpus() -> int:
    """CPUs this process may be scheduled on, whatever share of them its control groups grant."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """CPU quotas, in CPUs, of this process's control groups and their parents."""
    for version, group in group_folders(root, "cpu"):
        if version == 2:
            yield from _quota(*read_text(group / "cpu.max").split()[:2])
        else:
            quota, period = read_text(group / "cpu.cfs_quota_us"), read_text(group / "cpu.cfs_period_us")
            yield from _quota(quota.strip(), period.strip())


def _quota(quota: str = "", period: str = "") -> Iterator[float]:
    # "max" and -1 mean none.
    if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
        yield int(quota) / int(period)
