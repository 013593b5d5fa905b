"""Facts that a figure needs beside it."""

from __future__ import annotations

from pathlib import Path

from phi4.bench.machine import machine_facts, processor_name, torch_threads


def test_processor_is_named_by_the_system_or_by_its_architecture(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Fast Chip 9000\nprocessor\t: 1\nmodel name\t: other\n")
    assert processor_name(info) == "Fast Chip 9000"
    assert processor_name(tmp_path / "gone")
    info.write_text("processor : 0\nmodel name :\n")
    assert processor_name(info)


def test_threads_of_pytorch_are_its_variable_or_the_affinity() -> None:
    assert torch_threads({"OMP_NUM_THREADS": " 3 "}) == 3
    everything = torch_threads({})
    assert everything >= 1
    assert torch_threads({"OMP_NUM_THREADS": "0"}) == torch_threads({"OMP_NUM_THREADS": "x"}) == everything


def test_facts_name_threads_and_versions() -> None:
    facts = machine_facts(1)
    assert facts["threads"].startswith("1 thread on ")
    assert {"processor", "system", "phi4", "python", "numpy", "onnxruntime"} <= set(facts)
