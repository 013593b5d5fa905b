"""Every provider that is installed, the CPU's at least, answers as PyTorch does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import phi4
from phi4.checkpoint import open_checkpoint
from phi4.onnx.build.export import export_package
from phi4.onnx.build.options import ExportOptions
from phi4.processing.mel import audio_arrays
from phi4.processing.tiles import tile_image
from phi4.shapes import FloatArray
from phi4.testing.media import chirp, ramp_picture
from phi4.testing.tiny import write_tiny_checkpoint
from phi4.types import AudioArrays, ImageArrays

PROVIDERS = sorted(set(onnxruntime.get_available_providers()) - {"AzureExecutionProvider"})
"""Azure's is in every build, sends data to a server and computes nothing here."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint with its package in the subfolder."""
    folder = tmp_path_factory.mktemp("providers") / "m"
    write_tiny_checkpoint(folder, max_positions=512)
    export_package(open_checkpoint(folder), folder / "onnx", ExportOptions("fp32"))
    return folder


@pytest.mark.parametrize("provider", PROVIDERS)
def test_answers_about_all_media_are_those_of_torch(provider: str, model: Path) -> None:
    expected, found = phi4.load(model, runner="torch"), phi4.load(model, provider=provider)
    assert found.info.device == provider.lower().removesuffix("executionprovider")
    for asked in ({}, {"images": ramp_picture(60, 40)}, {"audio": chirp(0.5)}):
        answers = [side.chat("what is it?", max_new_tokens=12, **asked) for side in (expected, found)]
        assert answers[0].token_ids == answers[1].token_ids
        scores = [side.score("what is it?", "the red house", **asked) for side in (expected, found)]
        np.testing.assert_allclose(scores[1].logprobs, scores[0].logprobs, atol=1e-4)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_features_of_the_encoders_are_those_of_torch(provider: str, model: Path) -> None:
    expected, found = phi4.load(model, runner="torch"), phi4.load(model, provider=provider)
    config = expected.config
    assert config.vision is not None and config.speech is not None
    for medium in (tile_image(ramp_picture(70, 50), config.vision), audio_arrays(chirp(0.6), config.speech)):
        features = [encoded(side, medium) for side in (expected, found)]
        np.testing.assert_allclose(features[1], features[0], atol=1e-4)


def encoded(model: phi4.Phi4, medium: ImageArrays | AudioArrays) -> FloatArray:
    """What the encoder of a model makes of a medium, as its runner holds it."""
    runner: Any = model.generator.runner
    return np.asarray(runner._features[runner.encode(medium).id])
