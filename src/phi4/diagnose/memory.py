"""Memory this process may still take: what the system has free, and what its control groups leave it.

In a container the system's own figure is that of the whole machine; the tightest limit of a control group
(version 1 and 2, the group and those around it) decides then. Files held in memory count as free, since the
kernel gives them up first.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def free_bytes(root: Path = Path("/")) -> int | None:
    """Bytes free for this process; None where the system does not tell (macOS, Windows).

    Args:
        root: Where `proc` and `sys` are found.
    """
    found = [*_system(root), *_groups(root)]
    return max(0, min(found)) if found else None


def _system(root: Path) -> Iterator[int]:
    """Source: Linux, proc(5): MemAvailable is what can be taken without swapping, in KiB."""
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable" and value.split()[:1] and value.split()[0].isdecimal():
            yield int(value.split()[0]) * 1024


def _groups(root: Path) -> Iterator[int]:
    """What each control group of this process leaves it.

    Source: Linux, cgroups(7): a line of /proc/self/cgroup is number:controllers:path, 0 in version 2.
    """
    mounted = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            for group in _upwards(mounted, path):
                yield from _left(group, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            for group in _upwards(mounted / "memory", path):
                yield from _left(
                    group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
                )


def _left(group: Path, limit: str, usage: str, cached: str) -> Iterator[int]:
    most, used = _read(group / limit).strip(), _read(group / usage).strip()
    if most.isdecimal() and used.isdecimal():  # "max" means no limit
        rows = dict(line.split()[:2] for line in _read(group / "memory.stat").splitlines() if " " in line)
        held = rows.get(cached, "0")
        yield int(most) - int(used) + (int(held) if held.isdecimal() else 0)


def _upwards(mounted: Path, path: str) -> Iterator[Path]:
    """A group's folder and those around it; inside a container only the mount itself may be there."""
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    for depth in range(len(parts), -1, -1):
        yield mounted.joinpath(*parts[:depth])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
