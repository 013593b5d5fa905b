"""The tiny model as a checkpoint, and rows of all kinds for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phi4.checkpoint import Checkpoint, open_checkpoint
from phi4.configs import Phi4Config
from phi4.onnx.calibrate.rows import CalibrationRow, make_rows
from phi4.onnx.calibrate.walk import DecoderWeights
from phi4.onnx.serving.session import SessionChoice
from phi4.processing.processor import Processor
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.testing.media import chirp, ramp_picture
from phi4.testing.tiny import write_tiny_checkpoint
from phi4.types import AudioPart, ImagePart, Message, ModelInputs, TextPart

CHOICE = SessionChoice(threads=1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The whole tiny model; not to be changed."""
    folder: Path = tmp_path_factory.mktemp("calibrate") / "tiny"
    write_tiny_checkpoint(folder, max_positions=512)
    return open_checkpoint(folder)


@pytest.fixture(scope="session")
def config(checkpoint: Checkpoint) -> Phi4Config:
    """Its config, with both adapters."""
    return checkpoint.config


@pytest.fixture(scope="session")
def processor(checkpoint: Checkpoint) -> Processor:
    """Its processor."""
    return Processor(checkpoint.config, Phi4Tokenizer.load(checkpoint.path))


@pytest.fixture(scope="session")
def texts(config: Phi4Config) -> list[ModelInputs]:
    """Rows of ids, of several lengths."""
    random = np.random.default_rng(0)
    return [ModelInputs(random.integers(5, 250, length)) for length in (40, 7, 64, 90, 33)]


@pytest.fixture(scope="session")
def media(processor: Processor) -> list[ModelInputs]:
    """A picture, a recording, and both together, each with a question."""
    picture, sound = ImagePart(ramp_picture(60, 40)), AudioPart(chirp(0.5))
    question = TextPart("what is it?")
    asked = [(picture, question), (sound, question), (picture, sound, question)]
    return [processor.prepare([Message("user", parts)]) for parts in asked]


@pytest.fixture(scope="session")
def weights(checkpoint: Checkpoint) -> DecoderWeights:
    """Its decoder."""
    return DecoderWeights(checkpoint, checkpoint.config)


@pytest.fixture(scope="session")
def rows(checkpoint: Checkpoint, texts: list[ModelInputs], media: list[ModelInputs]) -> list[CalibrationRow]:
    """All of them, made ready."""
    return make_rows(checkpoint, checkpoint.config, [*texts, *media], CHOICE)
