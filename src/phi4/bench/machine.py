"""Facts of the machine and of a runner that a figure is worth nothing without."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from phi4.api import Phi4
from phi4.onnx.machine.processor import processor_name
from phi4.onnx.machine.threads import scheduled_cpus
from phi4.version import __version__

_PACKAGES = ("numpy", "onnxruntime", "torch")


def machine_facts(threads: int) -> dict[str, str]:
    """Processor, CPUs, system and versions, in words.

    Args:
        threads: Threads the limits and the onnx runner use.
    """
    facts = {
        "processor": processor_name(),
        "threads": f"{threads} thread{'' if threads == 1 else 's'} on {os.cpu_count()} CPUs",
        "system": platform.platform(terse=True),
        "phi4": __version__,
        "python": platform.python_version(),
    }
    for name in _PACKAGES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            continue
    return facts


def torch_threads(environment: Mapping[str, str]) -> int:
    """Threads PyTorch computes with: `OMP_NUM_THREADS`, else the CPUs the process may be scheduled on."""
    asked = environment.get("OMP_NUM_THREADS", "").strip()
    if asked.isdecimal() and int(asked):
        return int(asked)
    return scheduled_cpus()


def runner_facts(model: Phi4) -> str:
    """Device, arithmetic and attention of a loaded model, in words."""
    info = model.info
    return f"{info.device}, {info.dtype}, {info.attention} attention"
