"""A model in the interface of Silero VAD judges frames; its graphs here say what they were given."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phi4.errors import InvalidArtifact, InvalidRequest
from phi4.onnx.voice_activity import VoiceActivityModel
from phi4.processing.mel import audio_arrays, log_mel
from phi4.processing.recordings import cut_recording
from phi4.processing.speech_segments import SpeechSettings, find_speech
from phi4.shapes import FloatArray
from phi4.testing.tiny import tiny_config

Write = Callable[..., Path]
BARE = SpeechSettings(join_s=0.0, pad_s=0.0)


def heights(*spans: tuple[float, float]) -> FloatArray:
    """Constant samples: (seconds, height) in turn."""
    return np.concatenate([np.full(round(16000 * seconds), height, np.float32) for seconds, height in spans])


def hiss(*spans_s: float) -> FloatArray:
    """Silence and loud white noise in turn, which our own judge takes for no speech."""
    loud = np.concatenate([np.full(round(16000 * span), at % 2) for at, span in enumerate(spans_s)])
    return np.asarray(0.1 * loud * np.random.default_rng(0).normal(size=len(loud)), np.float32)


def found(model: VoiceActivityModel, samples: FloatArray, settings: SpeechSettings = BARE) -> list[float]:
    """Where speech begins and ends, in seconds, one after the other."""
    regions = find_speech(log_mel(samples), settings, model, samples)
    return [border / 100 for region in regions for border in region]


def test_each_window_is_heard_behind_the_end_of_the_one_before(voice_model: Write) -> None:
    samples = np.linspace(0.0, 1.0, 512 * 5 + 100, dtype=np.float32)
    windows = np.pad(samples, (0, 412)).reshape(6, 512)
    new = VoiceActivityModel(voice_model("height")).probabilities(samples)
    np.testing.assert_allclose(new, windows.mean(axis=1), atol=1e-6)
    before = VoiceActivityModel(voice_model("context")).probabilities(samples)
    np.testing.assert_allclose(before, [0.0, *windows[:-1, -64:].mean(axis=1)], atol=1e-6)


def test_the_state_goes_from_window_to_window_and_begins_anew_with_a_recording(voice_model: Write) -> None:
    model = VoiceActivityModel(voice_model("count"))
    for num_windows in (7, 3):
        counted = model.probabilities(np.zeros(512 * num_windows, np.float32))
        np.testing.assert_allclose(counted, np.arange(num_windows) / 1000, atol=1e-6)


def test_speech_begins_at_one_probability_and_goes_on_at_a_lower_one(voice_model: Write) -> None:
    samples = heights((1.0, 0.1), (1.0, 0.45), (1.0, 0.1), (1.0, 0.6), (1.0, 0.4), (1.0, 0.3), (1.0, 0.6))
    path = voice_model("height")
    assert found(VoiceActivityModel(path), samples) == pytest.approx([3, 5, 6, 7], abs=0.04)
    assert found(VoiceActivityModel(path, onset=0.44), samples) == pytest.approx([1, 2, 3, 5, 6, 7], abs=0.04)
    assert found(VoiceActivityModel(path, hold=0.5), samples) == pytest.approx([3, 4, 6, 7], abs=0.04)


def test_short_stretches_are_no_speech_unless_they_follow_each_other(voice_model: Write) -> None:
    short = heights((1.0, 0.0), (0.16, 0.9), (1.0, 0.0))
    path = voice_model("height")
    assert found(VoiceActivityModel(path), short) == []
    assert found(VoiceActivityModel(path, least_s=0.1), short) == pytest.approx([1.0, 1.16], abs=0.04)
    twice = heights((1.0, 0.0), (0.16, 0.9), (0.2, 0.0), (0.16, 0.9), (1.0, 0.0))
    assert found(VoiceActivityModel(path), twice) == []
    joined = found(VoiceActivityModel(path), twice, SpeechSettings())
    assert joined == pytest.approx([0.8, 1.72], abs=0.05)


def test_where_the_model_hears_nobody_there_is_no_part(voice_model: Write) -> None:
    speech = tiny_config().speech
    assert speech is not None
    model = VoiceActivityModel(voice_model("energy"))
    for seconds in (0.025, 1.0, 50.0):
        samples = np.random.default_rng(1).normal(0, 0.0003, round(16000 * seconds)).astype(np.float32)
        recording = audio_arrays(samples, speech)
        assert cut_recording(recording, speech, judge=model, samples=samples) == ()


def test_a_long_recording_is_cut_where_the_model_hears_nobody(voice_model: Write) -> None:
    speech = tiny_config().speech
    assert speech is not None
    speech = replace(speech, max_segment_s=30.0)
    samples = hiss(0.5, 14.0, 1.5, 13.0, 3.0, 12.0, 0.5)
    recording = audio_arrays(samples, speech)
    assert cut_recording(recording, speech) == ()
    model = VoiceActivityModel(voice_model("energy"))
    parts = cut_recording(recording, speech, judge=model, samples=samples)
    told = [time for part in parts for stretch in part.voiced for time in stretch]
    assert told == pytest.approx([0.3, 14.7, 15.8, 29.2, 31.8, 44.2], abs=0.05)
    assert [len(part.voiced) for part in parts] == [2, 1]
    short = cut_recording(
        recording, speech, judge=model, samples=samples, settings=SpeechSettings(max_segment_s=9.0)
    )
    assert max(part.audio.duration_s for part in short) <= 9.02
    assert all(a.end_s <= b.start_s for a, b in itertools.pairwise(short))


def test_features_alone_cannot_be_judged(voice_model: Write) -> None:
    model = VoiceActivityModel(voice_model("energy"))
    with pytest.raises(InvalidRequest, match="give the recording itself"):
        find_speech(log_mel(hiss(0.5, 0.5)), judge=model)


@pytest.mark.parametrize(
    ("shows", "changes", "says"),
    [
        (
            "energy",
            {"names": ("input", "h", "sr")},
            r"inputs are input tensor\(float\), h tensor\(float\), sr",
        ),
        ("energy", {"num_samples": 512}, r"ONNX Runtime .*576.*512"),
        ("energy", {"num_probabilities": 2}, r"outputs are tensor\(float\) \[1, 2\], tensor\(float\) \[2, 1"),
    ],
)
def test_a_graph_of_another_interface_is_refused(
    shows: str, changes: dict[str, Any], says: str, voice_model: Write
) -> None:
    path = voice_model(shows, **changes)
    with pytest.raises(InvalidArtifact, match=rf"energy\.onnx: .*{says}.*; a voice-activity model has"):
        VoiceActivityModel(path)


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no graph at all")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name, says in (("text", "ONNX Runtime"), ("empty", "ONNX Runtime"), ("gone", "no such file")):
        with pytest.raises(InvalidArtifact, match=rf"{name}\.onnx: {says}.*; a voice-activity model has"):
            VoiceActivityModel(tmp_path / f"{name}.onnx")
    with pytest.raises(InvalidArtifact, match="no such file"):
        VoiceActivityModel(tmp_path)


def test_what_is_no_probability_is_refused(voice_model: Write) -> None:
    model = VoiceActivityModel(voice_model("broken"))
    with pytest.raises(InvalidArtifact, match=r"broken\.onnx: gave -1.0 to -1.0 for probabilities"):
        model.probabilities(np.zeros(1600, np.float32))
