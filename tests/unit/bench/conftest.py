"""The tiny model in both forms, with a short context."""

from __future__ import annotations

from pathlib import Path

import pytest

from phi4.api import load
from phi4.bench.speeds import Subject
from phi4.checkpoint import open_checkpoint
from phi4.onnx.building import ExportOptions, export_package
from phi4.testing.tiny import write_tiny_checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a package in its subfolder."""
    folder = tmp_path_factory.mktemp("bench") / "tiny"
    write_tiny_checkpoint(folder, original_max=256, max_positions=600)
    export_package(open_checkpoint(folder), folder / "onnx", ExportOptions(precision="int8"))
    return folder


@pytest.fixture(scope="session", params=["onnx", "torch"])
def subject(request: pytest.FixtureRequest, tiny: Path) -> Subject:
    """The model loaded for each runner."""
    return Subject(request.param, load(tiny, runner=request.param))
