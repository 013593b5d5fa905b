"""The tiny model whole: a checkpoint with its manifest, and a package of it in the subfolder `onnx`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from phi4.checkpoint import open_checkpoint, write_manifest
from phi4.onnx.building import ExportOptions, export_package
from phi4.testing.tiny import write_tiny_checkpoint


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed; take a copy (`model`) for that."""
    folder = tmp_path_factory.mktemp("diagnose") / "tiny"
    write_tiny_checkpoint(folder, max_positions=8192)
    write_manifest(folder)
    export_package(open_checkpoint(folder), folder / "onnx", ExportOptions(precision="fp32"))
    return folder


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(whole, tmp_path / "tiny"))
