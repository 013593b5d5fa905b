"""Log-mel features: golden values at both rates, the mel matrix, framing, speed and refusals."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phi4.configs import PHI4_MULTIMODAL, SpeechConfig
from phi4.errors import InvalidMedia
from phi4.processing.mel import audio_arrays, count_frames, log_mel, mel_matrix
from phi4.testing.media import chirp

assert PHI4_MULTIMODAL.speech is not None
OFFICIAL: SpeechConfig = PHI4_MULTIMODAL.speech


@pytest.fixture(scope="module")
def golden(repository: Path) -> dict[str, Any]:
    return json.loads((repository / "tests/data/golden/golden.json").read_text())["log_mel"]


@pytest.mark.parametrize(("rate", "case"), [(16000, "rc_16k"), (8000, "rc_8k")])
def test_features_match_golden_values(golden, rate: int, case: str):
    features = log_mel(chirp(1.0, rate), rate)
    assert features.dtype == np.float32
    assert list(features.shape) == golden[case]["shape"]
    for place, value in golden[case]["values"].items():
        assert features[tuple(map(int, place.split(",")))] == pytest.approx(value, abs=2e-5)
    assert features.sum(dtype=np.float64) == pytest.approx(golden[case]["sum"], abs=5e-3)


def test_mel_matrix_matches_golden_values(golden):
    matrix, wanted = mel_matrix(), golden["mel_matrix"]
    assert list(matrix.shape) == wanted["shape_bins_filters"]
    assert matrix.sum() == pytest.approx(wanted["total_sum"], abs=1e-4)
    for place in (1, 100, 245):
        found = {int(f): matrix[place, f] for f in np.flatnonzero(matrix[place])}
        assert found == pytest.approx(dict(map(tuple, wanted[f"bin{place}"])), abs=1e-5)


def test_no_bin_outside_1_to_245_is_used():
    used = np.flatnonzero(mel_matrix().any(axis=1))
    assert (used[0], used[-1]) == (1, 245)


@pytest.mark.parametrize(
    ("seconds", "frames", "tokens"),
    [
        (0.025, 1, 1),
        (0.5, 48, 6),
        (1, 98, 13),
        (5, 498, 63),
        (10, 998, 125),
        (30, 2998, 375),
        (40, 3998, 500),
    ],
)
def test_frames_and_tokens_match_published_table(seconds: float, frames: int, tokens: int):
    arrays = audio_arrays(np.zeros(int(seconds * 16000), np.float32), OFFICIAL)
    assert arrays.features.shape == (frames, 80)
    assert arrays.num_tokens == tokens
    assert arrays.duration_s == pytest.approx(seconds)


def test_half_an_hour_takes_22500_tokens():
    assert OFFICIAL.num_tokens(count_frames(1800 * 16000)) == 22500


def test_silence_gives_exactly_zero():
    assert not log_mel(np.zeros(16000, np.float32)).any()


def test_pre_emphasis_looks_only_inside_the_frame():
    samples = np.random.default_rng(0).standard_normal(16000) * 0.1
    alone = log_mel(samples[1600 : 1600 + 400])
    np.testing.assert_allclose(log_mel(samples)[10], alone[0], atol=1e-6)


def test_block_borders_do_not_show():
    samples = np.random.default_rng(1).standard_normal(16000 * 12).astype(np.float32) * 0.1
    whole = log_mel(samples)
    assert len(whole) > 1024
    for frame in (511, 512, 513, 1023, 1024, len(whole) - 1):
        piece = samples[frame * 160 : frame * 160 + 400]
        np.testing.assert_allclose(whole[frame], log_mel(piece)[0], atol=1e-6)


def test_tail_of_less_than_a_window_is_dropped():
    samples = chirp(1.0)
    np.testing.assert_array_equal(log_mel(samples[: 400 + 160 + 159]), log_mel(samples[: 400 + 160]))


def test_upper_mels_are_silent_at_8_khz():
    features = log_mel(chirp(1.0, 8000), 8000)
    assert not features[:, 79].any()
    assert features[:, :40].any()


@pytest.mark.parametrize(("rate", "num_samples"), [(16000, 399), (16000, 0), (8000, 199)])
def test_less_than_25_ms_is_refused_with_its_length(rate: int, num_samples: int):
    with pytest.raises(InvalidMedia, match=rf"{1000 * num_samples / rate:.1f} ms.*25 ms"):
        log_mel(np.zeros(num_samples, np.float32), rate)


@pytest.mark.parametrize("rate", [44100, 24000, 11025, 0])
def test_other_rates_are_refused(rate: int):
    with pytest.raises(InvalidMedia, match=f"not {rate}: resample"):
        log_mel(np.zeros(50000, np.float32), rate)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused(bad: float):
    samples = np.zeros(16000, np.float32)
    samples[12345] = bad
    with pytest.raises(InvalidMedia, match="not numbers"):
        log_mel(samples)


@pytest.mark.parametrize("samples", [np.zeros((2, 16000), np.float32), np.zeros(16000, np.int16)])
def test_channels_and_integers_are_refused(samples):
    with pytest.raises(InvalidMedia, match="one channel of floats"):
        log_mel(samples)


def test_digest_follows_the_sound():
    first = audio_arrays(chirp(0.5), OFFICIAL)
    assert first.digest == audio_arrays(chirp(0.5), OFFICIAL).digest
    assert first.digest != audio_arrays(-0.5 * chirp(0.5), OFFICIAL).digest


def test_a_core_makes_features_100_times_faster_than_real_time():
    samples = np.random.default_rng(2).standard_normal(16000 * 30).astype(np.float32) * 0.1
    log_mel(samples[:16000])
    # CPU time of this process: other processes on the machine do not count.
    start = time.process_time()
    log_mel(samples)
    assert time.process_time() - start < 30 / 100
