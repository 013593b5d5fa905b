"""Log-mel features: the speech front end, exact to the released one, in numpy.

`log_mel` turns mono samples into `[A, 80]` float32, a frame each 10 ms; `audio_arrays` adds token count,
duration and digest; `cut_audio` takes a piece. Frames are taken without padding or centring, so the tail of
less than one window is dropped. Float64 inside: quiet bins beside loud ones lose more than the parity bound
in a float32 FFT. Left out: opening and resampling recordings (`phi4.processing.audio`).

Source: feature extractor of the released Phi-4-multimodal processor.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from phi4.errors import InvalidMedia
from phi4.shapes import AnyArray, FloatArray
from phi4.types import AudioArrays

if TYPE_CHECKING:
    from phi4.configs import SpeechConfig

SAMPLE_RATE_HZ = 16000
NUM_MELS = 80
_NUM_BINS = 257
_MAX_MEL_HZ = 7690.0
_PRE_EMPHASIS = 0.97
_BLOCK_FRAMES = 512
"""Frames a block: its spectra (2 MiB) stay in the cache, and memory does not grow with the recording."""


def log_mel(samples: AnyArray, rate: int = SAMPLE_RATE_HZ, *, name: str = "the recording") -> FloatArray:
    """Compute log-mel features.

    Args:
        samples: Mono samples `[S]` in [-1, 1]; no loudness normalisation is done.
        rate: 16000, or 8000 (telephone speech: the upper half of the spectrum counts as silent).
        name: What errors call the recording.

    Returns:
        `[A, 80]` float32 with A = floor((S - window) / hop) + 1; silence gives exactly 0.

    Raises:
        InvalidMedia: Wrong rate or shape, less than one window (25 ms), or samples that are not finite.
    """
    if rate not in (8000, 16000):
        raise InvalidMedia(f"log-mel features need a rate of 16000 or 8000 Hz, not {rate}: resample first")
    samples = np.asarray(samples)
    if samples.ndim != 1 or samples.dtype.kind != "f":
        raise InvalidMedia(
            f"{name} has shape {list(samples.shape)} and type {samples.dtype}: give one channel of floats"
        )
    num_frames = count_frames(len(samples), rate, name=name)
    features = np.empty((num_frames, NUM_MELS), np.float32)
    hop, window = rate // 100, rate // 40
    for start in range(0, num_frames, _BLOCK_FRAMES):
        stop = min(start + _BLOCK_FRAMES, num_frames)
        block = samples[start * hop : (stop - 1) * hop + window].astype(np.float64)
        if not np.isfinite(block).all():
            raise InvalidMedia(
                f"{name} holds samples that are not numbers (NaN or infinity): export it again"
            )
        features[start:stop] = _block_features(block, rate)
    return features


def count_frames(num_samples: int, rate: int = SAMPLE_RATE_HZ, *, name: str = "the recording") -> int:
    """Frames of a recording of `num_samples` at 16000 or 8000 a second; `name` is what errors call it.

    Raises:
        InvalidMedia: Shorter than one window of 25 ms.
    """
    hop, window = rate // 100, rate // 40
    if num_samples < window:
        raise InvalidMedia(f"{name} is {1000 * num_samples / rate:.1f} ms long: 25 ms of sound is the least")
    return (num_samples - window) // hop + 1


def audio_arrays(
    samples: AnyArray, cfg: SpeechConfig, rate: int = SAMPLE_RATE_HZ, *, name: str = "the recording"
) -> AudioArrays:
    """Turn a recording into what the speech encoder takes.

    Args:
        samples: Mono samples `[S]` in [-1, 1].
        cfg: Speech config of the model; gives the time reduction.
        rate: Samples a second, see `log_mel`.
        name: What errors call the recording.

    Raises:
        InvalidMedia: See `log_mel`.
    """
    return _arrays(log_mel(samples, rate, name=name), cfg, len(samples) / rate)


def cut_audio(audio: AudioArrays, start: int, stop: int, cfg: SpeechConfig) -> AudioArrays:
    """A piece of a recording, equal to the features of that piece alone.

    Args:
        audio: The whole.
        start: First frame.
        stop: Frame behind the last.
        cfg: Speech config of the model; gives the time reduction.
    """
    assert 0 <= start < stop <= len(audio.features), "a piece lies inside the recording"
    # The last frame reaches 25 ms from its start.
    return _arrays(audio.features[start:stop], cfg, (stop - start - 1) / 100 + 0.025)


def _arrays(features: FloatArray, cfg: SpeechConfig, duration_s: float) -> AudioArrays:
    digest = hashlib.sha256(repr(features.shape).encode())
    digest.update(features.data)
    return AudioArrays(features, cfg.num_tokens(len(features)), duration_s, digest.hexdigest())


@lru_cache(maxsize=1)
def mel_matrix() -> AnyArray:
    """Weights `[257, 80]` float64 of each FFT bin in each mel filter.

    Triangles of height 1 in mel space, without area normalisation, from 0 to 7690 Hz; bin 246 and above are
    not used (the transformers port gives bin 246 a weight of 0.0097, the original none).
    """
    top = _mel(np.array(_MAX_MEL_HZ))
    spacing = top / (NUM_MELS + 1)
    centres = spacing * np.arange(1, NUM_MELS + 1)
    bins = _mel(np.arange(_NUM_BINS) * (SAMPLE_RATE_HZ / 512))
    weights = np.maximum(0.0, 1.0 - np.abs(centres[None, :] - bins[:, None]) / spacing)
    weights[int(_MAX_MEL_HZ * 512 / SAMPLE_RATE_HZ + 0.5) :] = 0.0
    weights.flags.writeable = False
    return weights


def _mel(hertz: AnyArray) -> AnyArray:
    return 1127.0 * np.log1p(hertz / 700.0)


@lru_cache(maxsize=2)
def _scaled_window(size: int) -> AnyArray:
    """Symmetric Hamming window times 2^15: the features are defined on 16-bit sample values."""
    window = 32768.0 * (0.54 - 0.46 * np.cos(2.0 * np.pi * np.arange(size) / (size - 1)))
    window.flags.writeable = False
    return window


def _block_features(samples: AnyArray, rate: int) -> AnyArray:
    """Features of a block of float64 samples that ends with its last frame."""
    hop, size = rate // 100, rate // 40
    flat = np.empty_like(samples)
    flat[0] = 0.0
    np.subtract(samples[1:], _PRE_EMPHASIS * samples[:-1], out=flat[1:])
    frames = sliding_window_view(flat, size)[::hop] * _scaled_window(size)  # [A, window]
    # Pre-emphasis looks back inside the frame only: the first sample takes itself as its predecessor.
    frames[:, 0] = (1.0 - _PRE_EMPHASIS) * samples[: len(frames) * hop : hop] * _scaled_window(size)[0]
    spectrum = np.fft.rfft(frames, n=512 if rate == SAMPLE_RATE_HZ else 256)
    # At 8 kHz the Nyquist bin is dropped and the missing upper bins count as zero.
    used = _NUM_BINS if rate == SAMPLE_RATE_HZ else 128
    power = spectrum.real[:, :used] ** 2 + spectrum.imag[:, :used] ** 2
    return np.log(np.maximum(power @ mel_matrix()[:used], 1.0))
