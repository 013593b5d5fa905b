"""Recordings: from any source to mono float32 samples at the model's rate.

`load_audio` reads WAV, FLAC, OGG and MP3 through libsndfile at any rate and channel count, in blocks: each
block is checked, mixed to one channel and resampled before the next is read, so memory is bounded by the
length limit at 16 kHz whatever the file claims. M4A, MP4, MOV and WebM are decoded when PyAV is installed
(extra `video`). Log-mel features are in `phi4.processing.mel`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import numpy as np
import soundfile
import soxr

from phi4.errors import InvalidMedia
from phi4.processing.media import DEFAULT_LIMITS, MediaLimits, OpenedMedia, decoding_failed, open_media
from phi4.processing.mel import SAMPLE_RATE_HZ
from phi4.shapes import AnyArray, FloatArray
from phi4.types import MediaSource

_BLOCK_VALUES = 2**18
_UNKNOWN_LENGTH = 2**62
"""libsndfile gives a number of this order where a stream does not tell its length."""

_MAX_AMPLITUDE = 100.0
"""Float recordings may pass 1.0 a little; far above it they hold unscaled integers."""

_READABLE = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3")


def load_audio(
    source: MediaSource,
    *,
    rate: int = SAMPLE_RATE_HZ,
    allow_remote: bool = False,
    allow_files: bool = True,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> FloatArray:
    """Load a recording as mono samples.

    Args:
        source: A path, the bytes of a file, or a `data:` URL.
        rate: Samples a second of the result: 16000, or 8000 for the telephone path of `log_mel`.
        allow_remote: See `open_media`.
        allow_files: See `open_media`.
        limits: See `MediaLimits`.

    Returns:
        `[S]` float32, nominally in [-1, 1]; the mean over the channels.

    Raises:
        InvalidMedia: Missing, empty, of another format, over a limit, damaged, or with samples not finite.
        MissingExtra: An M4A, MP4, MOV or WebM file, and PyAV is not installed.
    """
    with open_media(
        source, "audio", allow_remote=allow_remote, allow_files=allow_files, limits=limits
    ) as media:
        return decode_audio(media, rate, limits)


def decode_audio(
    media: OpenedMedia, rate: int = SAMPLE_RATE_HZ, limits: MediaLimits = DEFAULT_LIMITS
) -> FloatArray:
    """Decode an opened recording, see `load_audio`.

    Raises:
        InvalidMedia: Over a limit, damaged, or with samples not finite.
    """
    blocks = _container_blocks if media.format.kind == "video" else _sound_blocks
    try:
        return _mix_and_resample(media.name, blocks(media, limits), rate, limits)
    except InvalidMedia:
        raise
    except Exception as error:
        # Decoders let many exception types escape on damaged files; this is their one exit.
        raise _damaged(media, error) from None


def _mix_and_resample(
    name: str, blocks: Iterator[tuple[int, AnyArray]], rate: int, limits: MediaLimits
) -> FloatArray:
    """Consume (source rate, `[frames, channels]` float32) blocks under a running cap on length."""
    pieces: list[FloatArray] = []
    resampler: soxr.ResampleStream | None = None
    num_frames = 0
    for source_rate, block in blocks:
        num_frames += len(block)
        if num_frames > limits.max_audio_s * source_rate:
            raise _too_long(name, limits)
        if resampler is None:
            resampler = soxr.ResampleStream(source_rate, rate, 1, dtype="float32")
        mono = _mono(name, block)
        pieces.append(mono if source_rate == rate else resampler.resample_chunk(mono))
    if resampler is None or num_frames == 0:
        raise InvalidMedia(f"{name} holds no sound: record it again")
    pieces.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    return np.concatenate(pieces)


def _mono(name: str, block: AnyArray) -> FloatArray:
    if not np.isfinite(block).all():
        raise InvalidMedia(f"{name} holds samples that are not numbers (NaN or infinity): export it again")
    if np.abs(block).max(initial=0.0) > _MAX_AMPLITUDE:
        raise InvalidMedia(
            f"{name} holds samples above {_MAX_AMPLITUDE:.0f}, full scale is 1: export it with scaled samples"
        )
    return np.ascontiguousarray(block.mean(axis=1, dtype=np.float32))


def _sound_blocks(media: OpenedMedia, limits: MediaLimits) -> Iterator[tuple[int, AnyArray]]:
    media.stream.seek(0)
    with soundfile.SoundFile(media.stream) as sound:
        if sound.format not in _READABLE:
            raise InvalidMedia(f"{media.name} is {sound.format} inside: give WAV, FLAC, OGG or MP3")
        _check_header(media.name, sound.samplerate, sound.channels, limits)
        if limits.max_audio_s * sound.samplerate < sound.frames < _UNKNOWN_LENGTH:
            raise _too_long(media.name, limits)
        size = max(1, _BLOCK_VALUES // sound.channels)
        while len(block := sound.read(size, dtype="float32", always_2d=True)):
            yield sound.samplerate, block


def _container_blocks(media: OpenedMedia, limits: MediaLimits) -> Iterator[tuple[int, AnyArray]]:
    """Decode the first audio track of a container through PyAV."""
    av = importlib.import_module("av")  # `open_media` has made sure that it is there
    media.stream.seek(0)
    with av.open(media.stream, mode="r", metadata_errors="replace") as container:
        if not container.streams.audio:
            raise InvalidMedia(f"{media.name} has no audio track: give a file with sound")
        track = container.streams.audio[0]
        rate, channels = track.rate, track.codec_context.channels
        _check_header(media.name, rate, channels, limits)
        # Planar floats, and the same layout and rate even where the stream changes them midway.
        convert = av.AudioResampler(format="fltp", layout=track.codec_context.layout, rate=rate)
        for frame in container.decode(track):
            for piece in convert.resample(frame):
                yield rate, piece.to_ndarray().T
        for piece in convert.resample(None):
            yield rate, piece.to_ndarray().T


def _check_header(name: str, rate: int, channels: int, limits: MediaLimits) -> None:
    if not limits.min_rate_hz <= rate <= limits.max_rate_hz:
        raise InvalidMedia(
            f"{name} has a rate of {rate} Hz, not {limits.min_rate_hz} to {limits.max_rate_hz}: convert it"
        )
    if not 1 <= channels <= limits.max_channels:
        raise InvalidMedia(f"{name} has {channels} channels, outside 1 to {limits.max_channels}: mix it down")


def _too_long(name: str, limits: MediaLimits) -> InvalidMedia:
    return InvalidMedia(f"{name} is longer than the limit of {limits.max_audio_s:g} s: cut it into pieces")


def _damaged(media: OpenedMedia, error: Exception) -> InvalidMedia:
    # soundfile puts the stream object with its address before the actual reason. Its code 7 is a guess about
    # pipes that misleads here: we know that the file exists and is regular.
    reason = getattr(error, "error_string", str(error))
    shown = ValueError("" if getattr(error, "code", None) == 7 else reason)
    return decoding_failed(media.name, f"{media.format.id} recording", shown)
