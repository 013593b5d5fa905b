"""Threads against CPUs, versions against requirements, memory against need."""

from __future__ import annotations

from pathlib import Path

import pytest

from phi4.checkpoint import describe
from phi4.diagnose import machine
from phi4.diagnose.case import Asked, Case
from phi4.diagnose.machine import (
    check_memory,
    check_runner_installed,
    check_versions,
    judge_memory,
    judge_threads,
    needed_bytes,
    unfit_packages,
)
from phi4.errors import InvalidRequest, MissingExtra
from phi4.onnx.machine.threads import MAX_THREADS
from phi4.registry import find_form, open_model


@pytest.mark.parametrize(
    ("runner", "environment", "quota", "affinity", "verdict", "says"),
    [
        ("onnx", {}, MAX_THREADS, 8, "ok", "8 threads; 8 CPUs for us: 8 by affinity, no quota"),
        ("onnx", {}, 2, 8, "ok", "2 threads; 2 CPUs for us: 8 by affinity, 2 by the quota"),
        ("onnx", {"PHI4_THREADS": "1"}, 2, 8, "ok", "1 thread by PHI4_THREADS"),
        ("onnx", {"PHI4_THREADS": "4"}, 2, 8, "warning", "4 threads by PHI4_THREADS"),
        ("onnx", {"OMP_NUM_THREADS": "64"}, 2, 8, "ok", "2 threads; 2 CPUs"),
        ("torch", {}, MAX_THREADS, 8, "ok", "8 threads of PyTorch"),
        ("torch", {}, 2, 8, "warning", "8 threads of PyTorch"),
        ("torch", {"OMP_NUM_THREADS": "2"}, 2, 8, "ok", "2 threads of PyTorch by OMP_NUM_THREADS"),
        ("torch", {"OMP_NUM_THREADS": "1"}, 2, 8, "warning", "1 thread of PyTorch by OMP_NUM_THREADS"),
        ("torch", {"OMP_NUM_THREADS": "16", "PHI4_THREADS": "2"}, 8, 8, "warning", "16 threads"),
        ("torch", {"OMP_NUM_THREADS": "a few"}, 8, 8, "ok", "8 threads of PyTorch;"),
    ],
)
def test_threads_are_judged_by_what_the_runner_obeys(
    runner: str, environment: dict[str, str], quota: int, affinity: int, verdict: str, says: str
) -> None:
    found = judge_threads(runner, environment, quota, affinity)
    assert found.verdict == verdict and says in found.finding
    assert bool(found.advice) == (verdict != "ok")


def test_advice_on_idle_and_on_crowded_cpus_differs() -> None:
    idle = judge_threads("torch", {"OMP_NUM_THREADS": "1"}, 4, 4).advice
    crowded = judge_threads("torch", {"OMP_NUM_THREADS": "9"}, 4, 4).advice
    assert idle.startswith("CPUs lie idle") and idle.endswith("set it to 4")
    assert crowded.startswith("threads without a CPU wait")


def test_impossible_number_of_threads_is_refused_as_the_runner_would() -> None:
    with pytest.raises(InvalidRequest, match="PHI4_THREADS is 'many'"):
        judge_threads("onnx", {"PHI4_THREADS": "many"}, 2, 2)


def test_missing_and_old_packages_are_named_and_extras_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"numpy": "1.26.4", "rich": "13.9rc1", "pillow": "12.0.0"}

    def version(name: str) -> str:
        if name not in there:
            raise machine.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(machine, "version", version)
    wanted = ["numpy>=2.0", "rich>=13.9", "pillow>=11.0", "soxr>=0.5", "torch>=2.6; extra == 'torch'", "odd"]
    assert list(unfit_packages(wanted)) == [
        "numpy is 1.26.4, at least 2.0 is needed",
        "soxr is not installed",
    ]


def test_versions_are_an_error_when_one_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "requires", lambda name: ["numpy>=2.0"])
    assert check_versions(Case(Asked())).verdict == "ok"
    monkeypatch.setattr(machine, "requires", lambda name: ["numpy>=999.0"])
    found = check_versions(Case(Asked()))
    assert found.verdict == "error" and "at least 999.0 is needed" in found.finding


def test_package_run_from_its_source_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> None:
        raise machine.PackageNotFoundError(name)

    monkeypatch.setattr(machine, "requires", unknown)
    assert "run from its source" in check_versions(Case(Asked())).finding


def test_old_python_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.sys, "version_info", (3, 10, 0))
    found = check_versions(Case(Asked()))
    assert found.verdict == "error" and "3.11" in found.advice


def test_runner_that_is_not_installed_is_an_error_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    with pytest.raises(MissingExtra, match=r"'\.\[torch\]'"):
        check_runner_installed(Case(Asked(), runner="torch"))


def test_runner_says_its_providers_and_refuses_what_it_cannot_give() -> None:
    found = check_runner_installed(Case(Asked(), runner="onnx"))
    assert found.verdict == "ok" and "CPU" in found.finding
    with pytest.raises(InvalidRequest, match="abacus"):
        check_runner_installed(Case(Asked(device="abacus"), runner="onnx"))


@pytest.mark.parametrize(
    ("needed", "free", "verdict"),
    [(10**9, None, "ok"), (10**9, 4 * 10**9, "ok"), (10**9, 11 * 10**8, "warning"), (10**9, 10**8, "error")],
)
def test_memory_is_judged_by_what_is_free(needed: int, free: int | None, verdict: str) -> None:
    found = judge_memory(needed, free)
    assert found.verdict == verdict and "1.0 GB for the weights" in found.finding
    assert bool(found.advice) == (verdict != "ok")


def test_memory_of_another_device_is_not_judged(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_bytes", lambda: 1)
    files = open_model("torch", whole, None)
    assert check_memory(Case(Asked(device="cpu"), files=files)).verdict == "error"
    found = check_memory(Case(Asked(device="cuda:1"), files=files))
    assert found.verdict == "ok" and "cuda:1 has memory of its own" in found.finding


@pytest.mark.parametrize("runner", ["onnx", "torch"])
def test_need_covers_weights_and_cache_of_the_parts_asked_for(whole: Path, runner: str) -> None:
    chosen, path = find_form(whole, runner)
    needs = []
    for parts in (("text",), None):
        files = open_model(chosen, path, parts)
        needs.append(needed_bytes(Case(Asked(modalities=parts), files=files)))
    decoder = files.config.decoder
    cache = 4096 * 2 * decoder.num_hidden_layers * decoder.kv_dim * 4
    weights = sum(describe(whole).nbytes.values())
    assert cache < needs[0] < needs[1]
    if runner == "torch":
        half = needed_bytes(Case(Asked(dtype="float16"), files=files))
        assert half == needs[1] // 2
    # A package pads its weights to pages, and some matrices stand in it in another shape.
    assert needs[1] == pytest.approx(weights + cache, rel=0.1)
