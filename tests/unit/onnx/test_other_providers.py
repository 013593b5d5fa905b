"""Every provider that is installed answers as the CPU's does; skipped where there is no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import phi4
from phi4.checkpoint import open_checkpoint
from phi4.onnx import OnnxPackage
from phi4.onnx.build.export import export_package
from phi4.onnx.build.options import ExportOptions
from phi4.onnx.runner import OrtRunner
from phi4.onnx.session import choose_session
from phi4.processing.mel import audio_arrays
from phi4.processing.tiles import tile_image
from phi4.testing.media import chirp, ramp_picture
from phi4.testing.tiny import write_tiny_checkpoint

OTHERS = sorted(
    set(onnxruntime.get_available_providers()) - {"CPUExecutionProvider", "AzureExecutionProvider"}
)
needs_another = pytest.mark.skipif(not OTHERS, reason="the installed ONNX Runtime has no other provider")


@needs_another
@pytest.mark.parametrize("provider", OTHERS)
def test_answers_about_all_media_are_those_of_the_cpu(provider: str, tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "m", max_positions=512)
    folder = export_package(open_checkpoint(tmp_path / "m"), tmp_path / "p", ExportOptions("fp32"))
    here, there = (phi4.load(folder, provider=name) for name in ("cpu", provider))
    assert there.info.device != here.info.device == "cpu"
    for asked in ({}, {"images": ramp_picture(60, 40)}, {"audio": chirp(0.5)}):
        answers = [model.chat("what is it?", max_new_tokens=12, **asked) for model in (here, there)]
        assert answers[0].token_ids == answers[1].token_ids
        scores = [model.score("what is it?", "the red house", **asked) for model in (here, there)]
        np.testing.assert_allclose(scores[0].logprobs, scores[1].logprobs, atol=1e-4)


@needs_another
@pytest.mark.parametrize("provider", OTHERS)
def test_features_of_the_encoders_are_those_of_the_cpu(provider: str, tiny_package: OnnxPackage) -> None:
    config = tiny_package.config
    assert config.vision is not None and config.speech is not None
    for medium in (tile_image(ramp_picture(70, 50), config.vision), audio_arrays(chirp(0.6), config.speech)):
        runners = [OrtRunner(tiny_package, choose_session(name, 1)) for name in ("cpu", provider)]
        expected, found = (runner._features[runner.encode(medium).id] for runner in runners)
        np.testing.assert_allclose(found, expected, atol=1e-4)
