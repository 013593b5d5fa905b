"""Memory this process may still take: what the system has free, and what its control groups leave it.

In a container the system's own figure is that of the whole machine; the tightest limit of a control group
(the group and those around it) decides then. Files held in memory count as free, since the kernel gives
them up first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from phi4.errors import OutOfMemory
from phi4.onnx.machine.cgroups import group_folders, read_text

USABLE_SHARE = 0.9
"""Share of the free memory to plan with; activations, and whatever else runs, get the rest."""
FRESH_S = 1.0


class FreeMemory:
    """`free_bytes` for those who ask often: asked anew after a second only, unless that is wanted.

    Asking reads a dozen files of the system, which takes half a millisecond, as long as a step of nano.

    Args:
        ask: What is asked.
        clock: Seconds that only grow.
    """

    def __init__(self, ask: Callable[[], int | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._asked_s: float | None = None
        self._found: int | None = None

    def recent(self) -> int | None:
        """What was free a second ago at most."""
        if self._asked_s is None or self._clock() - self._asked_s >= FRESH_S:
            return self.now()
        return self._found

    def now(self) -> int | None:
        """What is free."""
        self._asked_s = self._clock()
        self._found = self._ask()
        return self._found


def check_fits(what: str, needed_bytes: int, free: int | None) -> None:
    """Refuse what the system would end the process for, half-way and without a word.

    Args:
        what: What needs the memory, as the message names it.
        needed_bytes: How much.
        free: What is free; None = unknown, then nothing is refused.

    Raises:
        OutOfMemory: It needs more than `USABLE_SHARE` of that; gives both figures and what to do.
    """
    if free is not None and needed_bytes > USABLE_SHARE * free:
        raise OutOfMemory(
            f"{what}: {needed_bytes / 1e6:,.0f} MB of memory are needed and {max(0, free) / 1e6:,.0f} MB are "
            "free, a tenth of which is kept for what is computed; end other programs, raise the memory limit "
            "of the container, or use a package of fewer bits"
        )


def free_bytes(root: Path = Path("/")) -> int | None:
    """Bytes free for this process; None where the system does not tell (macOS, Windows).

    Args:
        root: Where `proc` and `sys` are found.
    """
    found = [*_system(root), *_groups(root)]
    return max(0, min(found)) if found else None


def _system(root: Path) -> Iterator[int]:
    """Source: Linux, proc(5): MemAvailable is what can be taken without swapping, in KiB."""
    for line in read_text(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable" and value.split()[:1] and value.split()[0].isdecimal():
            yield int(value.split()[0]) * 1024


def _groups(root: Path) -> Iterator[int]:
    """What each control group of this process leaves it."""
    for version, group in group_folders(root, "memory"):
        if version == 2:
            yield from _left(group, "memory.max", "memory.current", "inactive_file")
        else:
            yield from _left(group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _left(group: Path, limit: str, usage: str, cached: str) -> Iterator[int]:
    most, used = read_text(group / limit).strip(), read_text(group / usage).strip()
    if most.isdecimal() and used.isdecimal():  # "max" means no limit
        rows = dict(line.split()[:2] for line in read_text(group / "memory.stat").splitlines() if " " in line)
        held = rows.get(cached, "0")
        yield int(most) - int(used) + (int(held) if held.isdecimal() else 0)
