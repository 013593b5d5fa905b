"""The processor is named by the system, and its identity changes with what it can compute with."""

from __future__ import annotations

from pathlib import Path

from phi4.onnx.machine.processor import processor_flags, processor_identity, processor_name


def cpuinfo(folder: Path, text: str) -> Path:
    path = folder / "cpuinfo"
    path.write_text(text)
    return path


def test_processor_is_named_by_the_system_or_by_its_architecture(tmp_path: Path) -> None:
    text = "processor\t: 0\nmodel name\t: Fast Chip 9000\nprocessor\t: 1\nmodel name\t: other\n"
    assert processor_name(cpuinfo(tmp_path, text)) == "Fast Chip 9000"
    assert processor_name(tmp_path / "gone")
    assert processor_name(cpuinfo(tmp_path, "processor : 0\nmodel name :\n"))


def test_flags_are_those_of_the_first_processor(tmp_path: Path) -> None:
    text = "processor : 0\nflags\t\t: fpu avx2 amx_tile\nflags : other\n"
    assert processor_flags(cpuinfo(tmp_path, text)) == {"fpu", "avx2", "amx_tile"}
    assert processor_flags(cpuinfo(tmp_path, "processor : 0\nFeatures : fp asimd\n")) == {"fp", "asimd"}
    assert processor_flags(tmp_path / "none") == frozenset()


def test_identity_follows_name_and_flags_but_not_their_order(tmp_path: Path) -> None:
    texts = ("model name : A\nflags : x y\n", "model name : A\nflags : y x\n")
    one, same = (processor_identity(cpuinfo(tmp_path, text)) for text in texts)
    assert one == same and "A" in one
    for other in ("model name : B\nflags : x y\n", "model name : A\nflags : x y z\n", ""):
        assert processor_identity(cpuinfo(tmp_path, other)) != one
