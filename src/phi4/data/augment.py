"""Makes clean synthetic speech sound as if recorded somewhere: room, tone, noise, loudness.

Everything linear happens in one pass through the frequency domain: colour of the microphone, low-pass,
reverberation and coloured noise are products and sums of spectra, so an utterance costs three
transforms. `strength` 0 leaves the recording alone but for its loudness, 1 is the training setting.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from phi4.data.speech import SAMPLE_RATE_HZ
from phi4.shapes import AnyArray, FloatArray

LOUDNESS_RMS = 0.06


def augment(
    samples: FloatArray, rng: np.random.Generator, strength: float
) -> tuple[FloatArray, dict[str, Any]]:
    """Returns a recording as heard in a room, and what was done to it.

    Args:
        samples: `[samples]` at 16 kHz.
        rng: Random stream.
        strength: 0 to 1; how far tone, room and noise may go.
    """
    before, after = (int(rng.uniform(0.02, 0.25) * SAMPLE_RATE_HZ) for _ in range(2))
    length = before + len(samples) + after
    padded = _fast_length(length + SAMPLE_RATE_HZ // 4)
    wave = np.zeros(padded, np.float32)
    wave[before : before + len(samples)] = samples
    wave *= LOUDNESS_RMS / max(float(np.sqrt(np.mean(samples**2))), 1e-4)
    if strength <= 0:
        return wave[:length], {"snr_db": None, "reverberation_s": 0.0}
    spectrum = np.fft.rfft(wave) * _tone(rng, padded, strength)
    room_s = float(rng.uniform(0.05, 0.25) * strength) if rng.random() < 0.5 else 0.0
    if room_s:
        spectrum *= np.fft.rfft(_room(rng, room_s), padded)
    snr_db = float(rng.uniform(8.0, 40.0)) + 20.0 * (1.0 - strength)
    heard = np.fft.irfft(spectrum + _noise(rng, padded, snr_db), padded)[:length].astype(np.float32)
    heard *= 10.0 ** (rng.uniform(-10.0, 6.0) * strength / 20.0)
    facts = {"snr_db": round(snr_db, 1), "reverberation_s": round(room_s, 3)}
    return np.clip(heard, -1.0, 1.0), facts


def _tone(rng: np.random.Generator, padded: int, strength: float) -> FloatArray:
    """Gain of each frequency: a random curve of up to 8 dB, and sometimes a telephone's low-pass."""
    frequency = np.fft.rfftfreq(padded, 1.0 / SAMPLE_RATE_HZ)
    knots = np.array([0.0, 150.0, 400.0, 1000.0, 2000.0, 4000.0, 8000.0])
    gain_db = np.interp(frequency, knots, rng.uniform(-8.0, 8.0, len(knots)) * strength)
    if rng.random() < 0.3 * strength:
        cutoff = rng.uniform(3000.0, 7000.0)
        gain_db -= 24.0 * np.log2(np.maximum(frequency, cutoff) / cutoff)
    return np.asarray(np.exp(gain_db * (np.log(10.0) / 20.0)), np.float32)


def _room(rng: np.random.Generator, room_s: float) -> FloatArray:
    """Impulse response: the direct sound, then noise that decays by 60 dB within `room_s` seconds."""
    count = max(2, int(room_s * SAMPLE_RATE_HZ))
    tail = rng.standard_normal(count, dtype=np.float32) * 10.0 ** (-3.0 * np.arange(count) / count)
    tail[0] = 0.0
    response = tail * (rng.uniform(0.2, 0.8) / np.sqrt(np.sum(tail**2)))
    response[0] = 1.0
    return np.asarray(response, np.float32)


def _noise(rng: np.random.Generator, padded: int, snr_db: float) -> AnyArray:
    """Spectrum of noise whose power falls with frequency to a random exponent (white to brown)."""
    count = padded // 2 + 1
    shape = np.arange(1, count + 1, dtype=np.float32) ** np.float32(-rng.uniform(0.0, 1.0))
    raw = rng.standard_normal((2, count), dtype=np.float32) * shape
    rms = np.sqrt(2.0 * float(np.sum(raw.astype(np.float64) ** 2))) / padded
    scale = LOUDNESS_RMS * 10.0 ** (-snr_db / 20.0) / max(rms, 1e-12)
    return np.asarray((raw[0] + 1j * raw[1]) * np.float32(scale))


def _fast_length(length: int) -> int:
    """Smallest 2^k, 3 * 2^k or 5 * 2^k that is at least `length`; the transform is quick there."""
    return min(f << max(0, int(np.ceil(np.log2(length / f)))) for f in (1, 3, 5))
