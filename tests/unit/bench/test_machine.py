"""Facts that a figure needs beside it."""

from __future__ import annotations

from phi4.bench.machine import machine_facts, torch_threads


def test_threads_of_pytorch_are_its_variable_or_the_affinity() -> None:
    assert torch_threads({"OMP_NUM_THREADS": " 3 "}) == 3
    everything = torch_threads({})
    assert everything >= 1
    assert torch_threads({"OMP_NUM_THREADS": "0"}) == torch_threads({"OMP_NUM_THREADS": "x"}) == everything


def test_facts_name_threads_and_versions() -> None:
    facts = machine_facts(1)
    assert facts["threads"].startswith("1 thread on ")
    assert {"processor", "system", "phi4", "python", "numpy", "onnxruntime"} <= set(facts)
