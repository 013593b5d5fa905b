"""Checks of the machine and the installation: versions, threads, runners and their providers, memory."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec

from phi4.checkpoint.inspect import EXAMPLE_TOKENS, describe
from phi4.diagnose.case import Case, need
from phi4.diagnose.finding import Finding
from phi4.onnx import OnnxPackage
from phi4.onnx.machine.memory import free_bytes
from phi4.onnx.machine.threads import MAX_THREADS, VARIABLE, available_cpus, scheduled_cpus, thread_count
from phi4.registry import RUNNERS, check_runner
from phi4.types import Modality
from phi4.version import __version__

MIN_PYTHON = (3, 11)
TIGHT = 0.8
"""Share of the free memory above which there is a warning: activations come on top of what is counted."""
_HOST_MEMORY = ("cpu", "openvino")
"""Devices, and providers of ONNX Runtime, that compute in the memory of the machine."""
_TORCH_VARIABLE = "OMP_NUM_THREADS"
_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*>=\s*([0-9.]+)")


def check_versions(case: Case) -> Finding:
    """Python and the packages of the base install, against what this phi4 asks for."""
    where = f"phi4 {__version__}, Python {platform.python_version()} on {platform.platform(terse=True)}"
    if sys.version_info < MIN_PYTHON:
        return Finding("error", where, f"use Python {'.'.join(map(str, MIN_PYTHON))} or newer")
    try:
        wanted = requires("phi4") or []
    except PackageNotFoundError:  # a checkout on PYTHONPATH
        return Finding("ok", f"{where}; run from its source, so versions of packages are not compared")
    unfit = list(unfit_packages(wanted))
    if unfit:
        return Finding("error", f"{where}; {', '.join(unfit)}", "from the checkout: pip install .")
    return Finding("ok", f"{where}; all packages of the base install are there and new enough")


def unfit_packages(requirements: list[str]) -> Iterator[str]:
    """Packages that are missing or too old, in words.

    Args:
        requirements: As the metadata of a distribution has them; those of extras are passed over.
    """
    for line in requirements:
        found = None if ";" in line else _REQUIREMENT.match(line)
        if found is None:
            continue
        name, least = found.groups()
        try:
            installed = version(name)
        except PackageNotFoundError:
            yield f"{name} is not installed"
            continue
        if _numbers(installed) < _numbers(least):
            yield f"{name} is {installed}, at least {least} is needed"


def _numbers(text: str) -> tuple[int, ...]:
    """(2, 4) of "2.4rc1": enough to tell an old version from a new one."""
    found = re.match(r"[0-9]+(?:\.[0-9]+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()


def check_runner_installed(case: Case) -> Finding:
    """The runner of the model's form, and whether it gives what was asked for."""
    chosen, asked = need(case.runner, "model"), case.asked
    there = [name for name, entry in RUNNERS.items() if find_spec(entry.requires) is not None]
    check_runner(chosen, device=asked.device, dtype=asked.dtype, attention=asked.attention)
    others = ", ".join(name for name in there if name != chosen) or "none"
    return Finding("ok", f"{chosen} (others installed: {others}); {providers()}")


def providers() -> str:
    """Execution providers of the installed ONNX Runtime, in words."""
    if find_spec("onnxruntime") is None:
        return "ONNX Runtime is not installed"
    import onnxruntime

    names = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    return f"ONNX Runtime {onnxruntime.__version__} has {', '.join(names)}"


def check_threads(case: Case) -> Finding:
    """Threads against affinity and control group, and what overrides them."""
    quota = available_cpus(affinity=MAX_THREADS)
    return judge_threads(case.runner or "onnx", os.environ, quota, scheduled_cpus())


def judge_threads(runner: str, environment: Mapping[str, str], quota: int, affinity: int) -> Finding:
    """The finding on threads.

    Args:
        runner: "onnx" obeys `PHI4_THREADS`, "torch" obeys `OMP_NUM_THREADS`.
        environment: Variables of the process.
        quota: CPUs the control groups grant, rounded up; `MAX_THREADS` = no limit.
        affinity: CPUs the process may be scheduled on.
    """
    cpus = min(quota, affinity)
    granted = f"{cpus} CPUs for us: {affinity} by affinity"
    granted += f", {quota} by the quota" if quota < MAX_THREADS else ", no quota"
    if runner == "torch":
        return _torch_threads(environment.get(_TORCH_VARIABLE, "").strip(), granted, cpus, affinity)
    asked = environment.get(VARIABLE, "").strip()
    chosen = thread_count(None, environment) if asked else cpus
    told = f"{_threads(chosen)}{f' by {VARIABLE}' if asked else ''}; {granted}"
    if chosen > cpus:
        return Finding("warning", told, f"threads without a CPU wait for each other: unset {VARIABLE}")
    return Finding("ok", told)


def _torch_threads(asked: str, granted: str, cpus: int, affinity: int) -> Finding:
    """PyTorch counts the CPUs of the affinity and knows of no quota."""
    if not asked.isdecimal():
        if affinity > cpus:
            advice = f"PyTorch does not see the quota: set {_TORCH_VARIABLE}={cpus}"
            return Finding("warning", f"{_threads(affinity)} of PyTorch; {granted}", advice)
        return Finding("ok", f"{_threads(affinity)} of PyTorch; {granted}")
    told = f"{_threads(int(asked))} of PyTorch by {_TORCH_VARIABLE}; {granted}"
    if int(asked) == cpus:
        return Finding("ok", told)
    what = "threads without a CPU wait for each other" if int(asked) > cpus else "CPUs lie idle"
    return Finding("warning", told, f"{what}: unset {_TORCH_VARIABLE}, or set it to {cpus}")


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"


def check_memory(case: Case) -> Finding:
    """Free memory against weights and the cache of one sequence."""
    needed, device = needed_bytes(case), case.asked.device
    if device not in (None, *_HOST_MEMORY):
        return Finding(
            "ok", f"{_size(needed)} wanted; the device {device} has memory of its own, not asked for"
        )
    return judge_memory(needed, free_bytes())


def judge_memory(needed: int, free: int | None) -> Finding:
    """The finding on memory, both in bytes; `free` None = unknown."""
    told = f"{_size(needed)} for the weights and {EXAMPLE_TOKENS:,} tokens"
    if free is None:
        return Finding("ok", f"{told}; this system does not tell how much is free")
    told += f", {_size(free)} free for this process"
    advice = "end other programs, load fewer --modalities, or take a package of fewer bits (phi4 export)"
    if needed > free:
        return Finding("error", told, advice)
    return Finding("warning", f"{told}: tight", advice) if needed > TIGHT * free else Finding("ok", told)


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.0f} MB"


def needed_bytes(case: Case) -> int:
    """Weights as they are loaded and the cache of `EXAMPLE_TOKENS`, for the parts asked for."""
    files = need(case.files, "weights")
    parts: tuple[Modality, ...] = tuple(case.asked.modalities or files.config.modalities)
    if not isinstance(files, OnnxPackage):
        report = describe(files.path)
        item_bytes = _ITEM_BYTES[case.asked.dtype or report.loaded_dtype]
        return report.memory_bytes(parts) * item_bytes // _ITEM_BYTES[report.loaded_dtype]
    weights = sum(files.loaded_bytes(graph) for graph in files.graphs)
    return weights + EXAMPLE_TOKENS * files.cache_bytes_per_token
