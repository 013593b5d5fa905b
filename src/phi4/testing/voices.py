"""Voices for tests: they say no words, but have what tools look for that look for speech.

`talk(0.5, 2.0, 1.0, 3.0)` pauses for half a second, speaks for two, pauses for one, speaks for three. Made in
memory from a seed.
"""

from __future__ import annotations

import numpy as np

from phi4.shapes import FloatArray

_FORMANTS_HZ = ((300, 800), (900, 2200), (2300, 3000))
"""Where three formants move."""


def voice(duration_s: float, seed: int = 0, rate: int = 16000) -> FloatArray:
    """Samples `[S]` of a babbling voice: harmonics of a gliding pitch, formants that move, syllables.

    Root mean square 0.06, as speech is usually recorded.
    """
    rng = np.random.default_rng(seed)
    seconds = np.arange(round(duration_s * rate)) / rate
    pitch = rng.uniform(90, 220) * (1.0 + 0.1 * np.sin(2 * np.pi * 0.7 * seconds + rng.uniform(0, 6)))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    knots = np.arange(0.0, duration_s + 0.5, 0.25)
    formants = [np.interp(seconds, knots, rng.uniform(low, high, len(knots))) for low, high in _FORMANTS_HZ]
    sound = np.zeros(len(seconds))
    for harmonic in range(1, 40):
        near = sum(1.0 / (1.0 + ((harmonic * pitch - formant) / 90.0) ** 2) for formant in formants)
        sound += near * np.sin(harmonic * phase) * (harmonic * pitch < rate / 2)
    sound *= 0.55 - 0.45 * np.cos(2 * np.pi * 4.0 * seconds)
    return np.asarray(0.06 * sound / np.sqrt(np.mean(sound**2)), np.float32)


def talk(*spans_s: float, noise: float = 0.0003, seed: int = 0, rate: int = 16000) -> FloatArray:
    """Samples `[S]` of somebody who speaks and pauses.

    Args:
        spans_s: Seconds in turn, first of a pause, then of a voice, then of a pause ...
        noise: Root mean square of the white noise of the room.
        seed: Of voices and noise.
        rate: Samples a second.
    """
    parts = [
        voice(span, seed + at, rate) if at % 2 else np.zeros(round(span * rate), np.float32)
        for at, span in enumerate(spans_s)
    ]
    clean = np.concatenate(parts)
    return clean + np.random.default_rng(seed).normal(0.0, noise, len(clean)).astype(np.float32)
