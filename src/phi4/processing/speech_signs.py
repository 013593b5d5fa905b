"""Which frames of a recording sound like speech: what a judge of frames is, and ours, which needs no model.

    evidence = SpeechSigns().judge(features, None)

Ours reads two signs off the log-mel frames the model hears anyway. Energy: how far the strongest bands
rise above the level they have in the quiet tenth of the seconds around. Spectrum: speech has formants, noise
of any colour has none, so what stays of a spectrum without its tilt is uneven or flat. Steady sounds (fans,
hum) become part of the floor. It cannot tell speech from song or from music. A model may judge in its place
(`phi4.onnx.voice_activity`); what becomes of the evidence is the same (`speech_segments`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from phi4.processing.mel import mel_matrix
from phi4.shapes import BoolArray, FloatArray

FRAMES_PER_S = 100

_BANDS = slice(5, 68)
"""Mel bands of 200 Hz to 5 kHz, where voices have most of their energy."""
_SMOOTH_FRAMES = 5
_FLOOR_STEP = 5
_FLOOR_REACH_FRAMES = 1000
"""The floor of a second is read off the 10 s before and behind it."""
_FLOOR_PERCENTILE = 10.0
_NUM_TOP_BANDS = 16
_BLOCK_FRAMES = FRAMES_PER_S


@dataclass(frozen=True)
class Evidence:
    """What a judge found in the frames of a recording.

    Attributes:
        level: `[A]`, how much each frame sounds like speech, in a unit of the judge's.
        onset: Level at which speech begins.
        hold: Level from which it goes on.
        proof: `[A]`, True = a frame that counts where a stretch has to prove that it is speech.
        least_s: How long such frames must last, all together, in a stretch that is speech.
        least_share: And for which share of its length.
    """

    level: FloatArray
    onset: float
    hold: float
    proof: BoolArray
    least_s: float
    least_share: float = 0.0


class SpeechJudge(Protocol):
    """Says of each frame how much it sounds like speech, and nothing of stretches, pauses or cuts."""

    def judge(self, features: FloatArray, samples: FloatArray | None) -> Evidence:
        """Judge a recording.

        Args:
            features: `[A, M]` log-mel at 16 kHz, from `phi4.processing.mel.log_mel`; at least one frame.
            samples: `[S]` in [-1, 1], what the features were computed of; None = they are not at hand.
        """
        ...


@dataclass(frozen=True)
class SpeechSigns:
    """Our judge: energy and spectrum. Levels are in dB, full-scale white noise = 0.

    Attributes:
        onset_db: Rise above the floor at which speech begins, mean over the sixteen bands that rise most.
        hold_db: Rise above which it goes on.
        least_level_db: Nothing below this is heard as background: silence with a little noise stays silence.
        structure_db: Unevenness a spectrum must have, once its tilt is taken out, to be a voice's.
        structured_s: How long a stretch must be uneven, all together, to be speech.
        structured_share: And for which share of its length.
    """

    onset_db: float = 10.0
    hold_db: float = 7.5
    least_level_db: float = -85.0
    structure_db: float = 3.5
    structured_s: float = 0.06
    structured_share: float = 0.05

    def judge(self, features: FloatArray, samples: FloatArray | None) -> Evidence:
        """Judge by the features alone; see `SpeechJudge`."""
        levels = _smoothed(band_levels(features))
        return Evidence(
            level=_rise(levels, self.least_level_db),
            onset=self.onset_db,
            hold=self.hold_db,
            proof=_unevenness(levels) >= self.structure_db,
            least_s=self.structured_s,
            least_share=self.structured_share,
        )


DEFAULT_JUDGE: SpeechJudge = SpeechSigns()


@lru_cache(maxsize=1)
def _white_noise_db() -> FloatArray:
    """Mel levels `[M]` that full-scale white noise has, in dB; pre-emphasis and filter widths are in it."""
    angle = 2.0 * np.pi * np.arange(len(mel_matrix())) / 512
    pre_emphasis = 1.0 + 0.97**2 - 2.0 * 0.97 * np.cos(angle)
    window = 0.54 - 0.46 * np.cos(2.0 * np.pi * np.arange(400) / 399)
    power = (mel_matrix() * pre_emphasis[:, None]).sum(axis=0) * (window**2).sum() * 2.0**30
    return np.asarray(10.0 * np.log10(power), np.float32)


def band_levels(features: FloatArray) -> FloatArray:
    """`[A, bands]` in dB, white noise of any loudness equal in all bands."""
    decibels: FloatArray = features[:, _BANDS] * np.float32(10.0 / np.log(10.0))
    decibels -= _white_noise_db()[_BANDS]
    return decibels


def _smoothed(levels: FloatArray) -> FloatArray:
    """Mean over five frames around each; a click of one frame loses most of its height."""
    half = _SMOOTH_FRAMES // 2
    wide = np.pad(levels, ((half, half), (0, 0)), mode="edge")
    total: FloatArray = wide[: len(levels)].copy()
    for shift in range(1, _SMOOTH_FRAMES):
        total += wide[shift : shift + len(levels)]
    return np.asarray(total / _SMOOTH_FRAMES, np.float32)


def _rise(levels: FloatArray, least_level_db: float) -> FloatArray:
    """`[A]`: how far the bands that rise most stand above their floor, in dB."""
    rise = np.empty(len(levels), np.float32)
    sampled = levels[::_FLOOR_STEP]
    for start in range(0, len(levels), _BLOCK_FRAMES):
        first = max(0, start - _FLOOR_REACH_FRAMES) // _FLOOR_STEP
        near = sampled[first : (start + _BLOCK_FRAMES + _FLOOR_REACH_FRAMES) // _FLOOR_STEP + 1]
        floor = np.percentile(near, _FLOOR_PERCENTILE, axis=0)
        above = levels[start : start + _BLOCK_FRAMES] - np.maximum(floor, least_level_db)
        rise[start : start + _BLOCK_FRAMES] = np.partition(above, -_NUM_TOP_BANDS, axis=1)[
            :, -_NUM_TOP_BANDS:
        ].mean(axis=1)
    return rise


def _unevenness(levels: FloatArray) -> FloatArray:
    """`[A]`: dB between the mean power of a spectrum and its mean level, after its tilt is taken out.

    Below 1 for noise of nearly any colour; 5 to 15 for vowels, whose formants stand out.
    """
    slope = np.linspace(-1.0, 1.0, levels.shape[1], dtype=np.float32)
    tilt = (levels @ slope) / (slope @ slope)
    flat = levels - levels.mean(axis=1, keepdims=True) - tilt[:, None] * slope
    powers = np.exp(flat * np.float32(np.log(10.0) / 10.0))
    return np.asarray(10.0 * np.log10(powers.mean(axis=1)), np.float32)
