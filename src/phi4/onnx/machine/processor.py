"""The processor: its name, and what decides which kernels run on it."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

from phi4.onnx.machine.cgroups import read_text

_CPUINFO = Path("/proc/cpuinfo")


def processor_name(cpuinfo: Path = _CPUINFO) -> str:
    """The processor's own name where the system tells it, else its architecture."""
    return _first(cpuinfo, "model name") or platform.processor() or platform.machine()


def processor_flags(cpuinfo: Path = _CPUINFO) -> frozenset[str]:
    """Flags of the first processor; empty where the system does not tell."""
    return frozenset(_first(cpuinfo, "flags", "Features").split())


def processor_identity(cpuinfo: Path = _CPUINFO) -> str:
    """Architecture, name, and a digest of the flags: equal where weights are arranged alike."""
    flags = hashlib.sha256(" ".join(sorted(processor_flags(cpuinfo))).encode()).hexdigest()[:16]
    return f"{platform.machine()}, {processor_name(cpuinfo)}, flags {flags}"


def _first(cpuinfo: Path, *fields: str) -> str:
    """Value of the first line that begins with one of the fields; "" = there is none."""
    lines = (line.partition(":") for line in read_text(cpuinfo).splitlines())
    return next((value.strip() for field, _, value in lines if field.strip() in fields), "")
