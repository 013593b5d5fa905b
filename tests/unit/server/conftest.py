"""A tiny model that a server can serve: a checkpoint with its ONNX package, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from phi4.checkpoint import open_checkpoint
from phi4.configs import Phi4Config
from phi4.onnx.build.export import ExportOptions, export_package
from phi4.onnx.package import open_package
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.testing.tiny import write_tiny_checkpoint


@pytest.fixture(scope="session")
def served_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny multimodal model with a context of 32,768, as an ONNX package."""
    folder = tmp_path_factory.mktemp("served")
    write_tiny_checkpoint(folder / "tiny", max_positions=32768)
    export_package(open_checkpoint(folder / "tiny"), folder / "package", ExportOptions(precision="fp32"))
    return folder / "package"


@pytest.fixture(scope="session")
def served_config(served_model: Path) -> Phi4Config:
    """Its config."""
    return open_package(served_model).config


@pytest.fixture(scope="session")
def served_tokenizer(served_model: Path, served_config: Phi4Config) -> Phi4Tokenizer:
    """Its tokenizer."""
    return Phi4Tokenizer.load(served_model, served_config.decoder.vocab_size)
