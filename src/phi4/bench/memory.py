"""Peak memory of this process, from Linux's own account; elsewhere there is no figure.

before = start_peak()
...
grown = peak_growth(before)
"""

from __future__ import annotations

from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def start_peak() -> int | None:
    """Forget the peak so far; returns the bytes resident now, None where that cannot be had.

    Source: Linux, proc(5): 5 written to clear_refs sets VmHWM to the current size.
    """
    try:
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return None
    return _resident("VmRSS")


def peak_growth(before: int | None) -> int | None:
    """Bytes by which the largest resident size since `start_peak` is above what was resident then."""
    peak = _resident("VmHWM")
    return None if before is None or peak is None else max(0, peak - before)


def _resident(field: str) -> int | None:
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(found[0]) * 1024 if found else None
