"""Facts of the machine that a figure is worth nothing without."""

from __future__ import annotations

import os
import platform
import subprocess
from typing import Any

from harness.environments import BENCHMARKS
from phi4.onnx.machine.processor import processor_flags, processor_name
from phi4.version import __version__

FLAGS = (
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
)
"""Instructions that decide which kernels run."""


def machine(threads: int) -> dict[str, Any]:
    """Processor with its flags, memory, system, threads and the commit that is measured."""
    return {
        "processor": processor_name(),
        "flags": [flag for flag in FLAGS if flag in processor_flags()],
        "cpus": os.cpu_count(),
        "threads": threads,
        "memory_GB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(terse=True),
        "phi4": __version__,
        "commit": commit(),
        "python": platform.python_version(),
    }


def beware(facts: dict[str, Any]) -> str:
    """What to know before figures are held against the bars; empty when they were set on such a machine."""
    if "amx_int8" in facts["flags"]:
        return ""
    return "The bars were set on a processor with AMX, this one has none: programs lose differently by it."


def same_machine(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether figures may stand in one table."""
    return all(one.get(key) == other.get(key) for key in ("processor", "flags", "cpus", "threads"))


def commit() -> str:
    """The checkout's commit, marked where files differ from it; "unknown" outside of a checkout."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=BENCHMARKS,
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
