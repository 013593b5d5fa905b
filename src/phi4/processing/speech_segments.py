"""Where somebody speaks in a recording: voice activity read off the log-mel frames the model hears anyway.

    regions = find_speech(features)       # ((first frame, frame behind the last), ...); () = silence
    segments = segment_speech(features)   # the same, grouped into at most 30 s, cut at quiet places

Two signs decide, without a model. Energy: how far the strongest bands rise above the level they have in the
quiet tenth of the seconds around. Spectrum: speech has formants, noise of any colour has none, so what stays
of a spectrum without its tilt is uneven or flat. Steady sounds (fans, hum) become part of the floor.

Left out on purpose: telling speech from song or from music, and who speaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from phi4.errors import InvalidRequest
from phi4.processing.mel import mel_matrix
from phi4.shapes import AnyArray, BoolArray, FloatArray

FRAMES_PER_S = 100
WINDOW_S = 40.0
"""What the speech encoder looks at in one piece: 500 positions of 80 ms."""
LEAST_SEGMENT_S = 1.0
Region = tuple[int, int]
"""Half-open range of frames of 10 ms."""

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
class SpeechSettings:
    """What counts as speech, and how long a segment may be. Levels are in dB, full-scale white noise = 0.

    Attributes:
        onset_db: Rise above the floor at which speech begins, mean over the sixteen bands that rise most.
        hold_db: Rise above which it goes on.
        least_level_db: Nothing below this is heard as background: silence with a little noise stays silence.
        structure_db: Unevenness a spectrum must have, once its tilt is taken out, to be a voice's.
        structured_s: How long a stretch must be uneven, all together, to be speech.
        structured_share: And for which share of its length.
        join_s: Gaps up to this are bridged: stops and breaths within a phrase.
        pad_s: Added before and behind each stretch, for its soft beginning and end.
        pause_s: A gap of this length between padded stretches always ends a segment.
        max_segment_s: Longest segment; the released model was trained on clips up to 30 s for most tasks.
    """

    onset_db: float = 10.0
    hold_db: float = 7.5
    least_level_db: float = -85.0
    structure_db: float = 3.5
    structured_s: float = 0.06
    structured_share: float = 0.05
    join_s: float = 0.3
    pad_s: float = 0.2
    pause_s: float = 2.0
    max_segment_s: float = 30.0

    def __post_init__(self) -> None:
        """Refuse lengths that cannot be heard.

        Raises:
            InvalidRequest: `max_segment_s` is outside 1 to 40 s, one window of the speech encoder.
        """
        if not LEAST_SEGMENT_S <= self.max_segment_s <= WINDOW_S:
            raise InvalidRequest(
                f"max_segment_s is {self.max_segment_s!r}; give {LEAST_SEGMENT_S:g} to {WINDOW_S:g} seconds"
            )


DEFAULT_SPEECH = SpeechSettings()


@dataclass(frozen=True)
class SpeechSegment:
    """A piece of a recording to be heard at once.

    Attributes:
        start: First frame.
        stop: Frame behind the last.
        voiced: Stretches with speech inside, in order; what lies between them is pause.
    """

    start: int
    stop: int
    voiced: tuple[Region, ...]


def find_speech(features: FloatArray, settings: SpeechSettings = DEFAULT_SPEECH) -> tuple[Region, ...]:
    """Stretches in which somebody speaks, in order and apart; none = silence, or sound without a voice.

    Args:
        features: `[A, M]` log-mel of a recording at 16 kHz, from `phi4.processing.mel.log_mel`.
        settings: See `SpeechSettings`.
    """
    if not len(features):
        return ()
    levels = _smoothed(_band_levels(features))
    rise = _rise(levels, settings.least_level_db)
    structured = np.concatenate([[0], np.cumsum(_unevenness(levels) >= settings.structure_db)])
    least = settings.structured_s * FRAMES_PER_S
    joined = _joined(_active(rise, settings), round(settings.join_s * FRAMES_PER_S))
    spoken = [
        (start, stop)
        for start, stop in joined
        if structured[stop] - structured[start] >= max(least, settings.structured_share * (stop - start))
    ]
    return _padded(spoken, round(settings.pad_s * FRAMES_PER_S), len(features))


def segment_speech(
    features: FloatArray, settings: SpeechSettings = DEFAULT_SPEECH, *, skip_silence: bool = True
) -> tuple[SpeechSegment, ...]:
    """Cut a recording into segments, at pauses where there are any and at its quietest places elsewhere.

    Args:
        features: As in `find_speech`.
        settings: See `SpeechSettings`.
        skip_silence: False = every frame is in a segment, speech or not.
    """
    regions = find_speech(features, settings) if skip_silence else ((0, len(features)),)
    most = max(2, round(settings.max_segment_s * FRAMES_PER_S))
    longest = max((stop - start for start, stop in regions), default=0)
    loudness = _loudness(features) if longest > most else np.zeros(0, np.float32)
    pieces = [piece for region in regions for piece in _cut(region, loudness, most)]
    return _grouped(pieces, most, round(settings.pause_s * FRAMES_PER_S))


@lru_cache(maxsize=1)
def _white_noise_db() -> FloatArray:
    """Mel levels `[M]` that full-scale white noise has, in dB; pre-emphasis and filter widths are in it."""
    angle = 2.0 * np.pi * np.arange(len(mel_matrix())) / 512
    pre_emphasis = 1.0 + 0.97**2 - 2.0 * 0.97 * np.cos(angle)
    window = 0.54 - 0.46 * np.cos(2.0 * np.pi * np.arange(400) / 399)
    power = (mel_matrix() * pre_emphasis[:, None]).sum(axis=0) * (window**2).sum() * 2.0**30
    return np.asarray(10.0 * np.log10(power), np.float32)


def _band_levels(features: FloatArray) -> FloatArray:
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


def _active(rise: FloatArray, settings: SpeechSettings) -> list[Region]:
    """Runs above the lower threshold that reach the upper one somewhere."""
    reached = np.concatenate([[0], np.cumsum(rise >= settings.onset_db)])
    return [
        (start, stop) for start, stop in _runs(rise >= settings.hold_db) if reached[stop] > reached[start]
    ]


def _runs(mask: BoolArray) -> list[Region]:
    """Half-open ranges in which the mask is True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _joined(regions: list[Region], gap: int) -> list[Region]:
    joined: list[Region] = []
    for start, stop in regions:
        if joined and start - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined


def _padded(regions: list[Region], pad: int, num_frames: int) -> tuple[Region, ...]:
    wide = [(max(0, start - pad), min(num_frames, stop + pad)) for start, stop in regions]
    return tuple(_joined(wide, 0))


def _loudness(features: FloatArray) -> FloatArray:
    """`[A]`: mean level in dB over a fifth of a second around each frame; for finding quiet places."""
    mean: AnyArray = _band_levels(features).mean(axis=1, dtype=np.float64)
    half = FRAMES_PER_S // 10
    total = np.cumsum(np.pad(mean, (half + 1, half), mode="edge"))
    return np.asarray((total[2 * half + 1 :] - total[: -2 * half - 1]) / (2 * half + 1), np.float32)


def _cut(region: Region, loudness: FloatArray, most: int) -> list[Region]:
    """Cut a stretch that is too long at the quietest place in the later half of what one segment holds."""
    pieces: list[Region] = []
    start, stop = region
    while stop - start > most:
        low = start + most // 2
        place = low + int(np.argmin(loudness[low : start + most]))
        pieces.append((start, place))
        start = place
    return [*pieces, (start, stop)]


def _grouped(pieces: list[Region], most: int, pause: int) -> tuple[SpeechSegment, ...]:
    """Put neighbours together as long as they fit; where they do not, break at the longest late pause."""
    groups: list[SpeechSegment] = []
    begin = 0
    while begin < len(pieces):
        first = pieces[begin][0]
        end = begin + 1
        while (
            end < len(pieces)
            and pieces[end][0] - pieces[end - 1][1] < pause
            and pieces[end][1] - first <= most
        ):
            end += 1
        if end < len(pieces) and pieces[end][0] - pieces[end - 1][1] < pause:
            late = [at for at in range(begin + 1, end + 1) if pieces[at - 1][1] - first >= most // 2]
            end = max(late, key=lambda at: (pieces[at][0] - pieces[at - 1][1], at), default=end)
        groups.append(SpeechSegment(first, pieces[end - 1][1], tuple(pieces[begin:end])))
        begin = end
    return tuple(groups)
