"""Whether a disk has room for what is going to be written, asked before anything is."""

from __future__ import annotations

import shutil
from pathlib import Path

from phi4.errors import InvalidRequest


def check_room(path: Path, needed_bytes: int, what: str) -> None:
    """Refuse now what would fail after minutes.

    Args:
        path: What is going to be written; it and folders around it need not be there yet.
        needed_bytes: At most what it takes.
        what: What it is, in words.

    Raises:
        InvalidRequest: Less than that is free.
    """
    whole = path.absolute()
    there = next(folder for folder in (whole, *whole.parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    if free < needed_bytes:
        raise InvalidRequest(
            f"{path}: {what} takes up to {needed_bytes} bytes, {free} are free there; free some space, "
            "choose another disk, or a precision of fewer bits"
        )
