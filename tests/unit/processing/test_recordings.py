"""Recordings up to 40 s stay whole, longer ones are cut, silence gives no part, and times are in seconds."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from phi4.configs import SpeechConfig
from phi4.processing.mel import audio_arrays, cut_audio
from phi4.processing.recordings import cut_recording
from phi4.processing.speech_segments import SpeechSettings
from phi4.shapes import FloatArray
from phi4.testing.tiny import tiny_config
from phi4.testing.voices import talk
from phi4.types import AudioArrays


@pytest.fixture(scope="module")
def cfg() -> SpeechConfig:
    speech = tiny_config().speech
    assert speech is not None
    return speech


@pytest.fixture(scope="module")
def lecture(cfg: SpeechConfig) -> AudioArrays:
    """56 s: four sentences, a long pause, three more."""
    return audio_arrays(talk(1.0, 5.0, 1.0, 8.0, 0.6, 6.0, 0.9, 7.0, 5.0, 8.0, 0.6, 6.0, 0.5, 6.0, 0.4), cfg)


def test_a_piece_equals_the_features_of_that_piece_alone(cfg: SpeechConfig) -> None:
    samples: FloatArray = talk(0.2, 1.5, 0.3)
    whole = audio_arrays(samples, cfg)
    for start, stop in (
        (0, 10),
        (37, 150),
        (0, len(whole.features)),
        (len(whole.features) - 1, len(whole.features)),
    ):
        alone = audio_arrays(samples[160 * start : 160 * (stop - 1) + 400], cfg)
        piece = cut_audio(whole, start, stop, cfg)
        np.testing.assert_allclose(piece.features, alone.features, atol=1e-5)
        assert piece.num_tokens == alone.num_tokens and piece.duration_s == pytest.approx(alone.duration_s)
    assert cut_audio(whole, 3, 9, cfg).digest != cut_audio(whole, 4, 10, cfg).digest


def test_up_to_forty_seconds_stay_whole(cfg: SpeechConfig) -> None:
    recording = audio_arrays(talk(1.0, 6.0, 3.0, 5.0, 2.0, noise=0.001), cfg)
    (part,) = cut_recording(recording, cfg)
    assert part.audio is recording
    assert (part.start_s, part.end_s) == pytest.approx((0.8, 15.2), abs=0.2)
    assert len(part.voiced) == 2


def test_longer_ones_are_cut_into_parts_with_their_times(cfg: SpeechConfig, lecture: AudioArrays) -> None:
    parts = cut_recording(lecture, cfg)
    assert [round(part.start_s) for part in parts] == [1, 34]
    for part in parts:
        assert part.audio.duration_s == pytest.approx(part.end_s - part.start_s, abs=0.02)
        start = round(100 * part.start_s)
        wanted = lecture.features[start : start + len(part.audio.features)]
        np.testing.assert_array_equal(part.audio.features, wanted)
        assert part.voiced[0][0] == part.start_s and part.voiced[-1][1] == part.end_s
    assert all(a.end_s < b.start_s for a, b in itertools.pairwise(parts))


def test_timestamps_cut_short_recordings_too_and_finer(cfg: SpeechConfig, lecture: AudioArrays) -> None:
    short = audio_arrays(talk(0.5, 3.0, 1.5, 2.0, 0.5), cfg)
    assert len(cut_recording(short, cfg)) == 1
    assert [round(part.start_s, 1) for part in cut_recording(short, cfg, timestamps=True)] == pytest.approx(
        [0.3, 4.8], abs=0.2
    )
    assert len(cut_recording(lecture, cfg, timestamps=True)) > len(cut_recording(lecture, cfg))


@pytest.mark.parametrize("seconds", [0.1, 5.0, 39.0, 60.0])
@pytest.mark.parametrize("level", [0.0, 0.001, 0.05])
def test_silence_and_noise_give_no_part(cfg: SpeechConfig, seconds: float, level: float) -> None:
    samples = np.random.default_rng(0).normal(0.0, level, round(16000 * seconds)).astype(np.float32)
    recording = audio_arrays(samples, cfg)
    assert cut_recording(recording, cfg) == cut_recording(recording, cfg, timestamps=True) == ()
    everything = cut_recording(recording, cfg, skip_silence=False)
    heard = sum(len(part.audio.features) for part in everything)
    assert heard == len(recording.features) and everything[0].start_s == 0.0


def test_parts_are_as_long_as_the_settings_allow(cfg: SpeechConfig, lecture: AudioArrays) -> None:
    parts = cut_recording(lecture, cfg, settings=SpeechSettings(max_segment_s=9.0))
    assert len(parts) == 7 and max(part.audio.duration_s for part in parts) <= 9.02


def test_a_model_of_short_clips_hears_short_parts_and_a_third_more_in_one_piece(cfg: SpeechConfig) -> None:
    short = replace(cfg, max_segment_s=4.0)
    long = audio_arrays(talk(*[0.4, 2.5] * 5, 0.4), cfg)
    assert len(cut_recording(long, cfg)) == 1
    parts = cut_recording(long, short)
    assert len(parts) == 5 and max(part.audio.duration_s for part in parts) <= 4.02
    assert len(cut_recording(audio_arrays(talk(0.4, 4.5, 0.4), cfg), short)) == 1
    assert len(cut_recording(audio_arrays(talk(0.4, 4.8, 0.4), cfg), short)) > 1
