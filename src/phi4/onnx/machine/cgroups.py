"""Control groups this process is in: where Linux states their limits, in versions 1 and 2.

    for version, folder in group_folders(Path("/"), "memory"):
        read_text(folder / "memory.max")

What the files say is for those who ask: `threads.py` and `memory.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def group_folders(root: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """Folders of this process's groups and of those around them, each with the version of its hierarchy.

    Args:
        root: Where `proc` and `sys` are found.
        controller: "cpu" or "memory".

    Source: Linux, cgroups(7): a line of /proc/self/cgroup is number:controllers:path, 0 in version 2.
    """
    mounted = root / "sys/fs/cgroup"
    for line in read_text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield from ((2, group) for group in _upwards(mounted, path))
        elif controller in controllers.split(","):
            for name in dict.fromkeys((controllers, controller)):  # mounted under either
                yield from ((1, group) for group in _upwards(mounted / name, path))


def read_text(path: Path) -> str:
    """A small file of the system; "" where it is not there."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _upwards(mounted: Path, path: str) -> Iterator[Path]:
    """A group's folder and those around it; inside a container only the mount itself may be there."""
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    for depth in range(len(parts), -1, -1):
        yield mounted.joinpath(*parts[:depth])
