"""Rooms and noise: as loud as said, as noisy as said, never clipped."""

from __future__ import annotations

import numpy as np
import pytest

from phi4.data.augment import LOUDNESS_RMS, augment
from phi4.data.records import stream

RATE = 16000


def tone(seconds: float = 1.0) -> np.ndarray:
    return (0.3 * np.sin(np.arange(int(seconds * RATE)) * 2 * np.pi * 600 / RATE)).astype(np.float32)


def test_strength_zero_only_pads_and_sets_the_loudness() -> None:
    heard, facts = augment(tone(), stream("a"), 0.0)
    start = int(np.flatnonzero(np.abs(heard) > 0)[0])
    middle = heard[start + 100 : start + 15000]
    assert facts["snr_db"] is None
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(LOUDNESS_RMS, rel=0.02)
    assert np.corrcoef(middle, tone()[101:15001])[0, 1] > 0.95


@pytest.mark.parametrize("seed", range(20))
def test_recordings_stay_in_range_and_keep_their_length(seed: int) -> None:
    heard, facts = augment(tone(), stream("b", seed), 1.0)
    assert heard.dtype == np.float32 and np.abs(heard).max() <= 1.0
    assert 1.04 * RATE <= len(heard) <= 1.5 * RATE
    assert 8 <= facts["snr_db"] <= 40 and 0 <= facts["reverberation_s"] <= 0.25


def test_noise_in_the_pauses_is_as_strong_as_stated() -> None:
    ratios = []
    for seed in range(60):
        heard, facts = augment(tone(3.0), stream("c", seed), 0.5)
        if facts["reverberation_s"] == 0.0:
            pause = heard[:300]
            speech = heard[RATE : 2 * RATE]
            measured = 20 * np.log10(np.sqrt(np.mean(speech**2)) / np.sqrt(np.mean(pause**2)))
            ratios.append(measured - facts["snr_db"])
    assert abs(float(np.median(ratios))) < 5, "the tone curve moves single cases by some dB"


def test_equal_streams_give_equal_recordings_and_others_differ() -> None:
    first, second, other = (augment(tone(), stream("d", seed), 1.0)[0] for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert len(first) != len(other) or not np.array_equal(first, other)


def test_silence_does_not_divide_by_zero() -> None:
    heard, _ = augment(np.zeros(RATE, np.float32), stream("e"), 1.0)
    assert np.isfinite(heard).all()
