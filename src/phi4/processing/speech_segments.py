"""Where somebody speaks in a recording, and where to cut it.

    regions = find_speech(features)       # ((first frame, frame behind the last), ...); () = silence
    segments = segment_speech(features)   # the same, grouped into at most 30 s, cut at quiet places

A judge says of each frame how much it sounds like speech: ours (`speech_signs`) or a model. Everything else
is decided here: what belongs together, what is too short to be speech, and where a segment ends.

Left out on purpose: who speaks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phi4.errors import InvalidRequest
from phi4.processing.speech_signs import (
    DEFAULT_JUDGE,
    FRAMES_PER_S,
    Evidence,
    SpeechJudge,
    band_levels,
)
from phi4.shapes import AnyArray, BoolArray, FloatArray

WINDOW_S = 40.0
"""What the speech encoder looks at in one piece: 500 positions of 80 ms."""
LEAST_SEGMENT_S = 1.0
Region = tuple[int, int]
"""Half-open range of frames of 10 ms."""


@dataclass(frozen=True)
class SpeechSettings:
    """What belongs together, and how long a segment may be.

    Attributes:
        join_s: Gaps up to this are bridged: stops and breaths within a phrase.
        pad_s: Added before and behind each stretch, for its soft beginning and end.
        pause_s: A gap of this length between padded stretches always ends a segment.
        max_segment_s: Longest segment; the released model was trained on clips up to 30 s for most tasks.
    """

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


def find_speech(
    features: FloatArray,
    settings: SpeechSettings = DEFAULT_SPEECH,
    judge: SpeechJudge = DEFAULT_JUDGE,
    samples: FloatArray | None = None,
) -> tuple[Region, ...]:
    """Stretches in which somebody speaks, in order and apart; none = silence, or sound without a voice.

    Args:
        features: `[A, M]` log-mel of a recording at 16 kHz, from `phi4.processing.mel.log_mel`.
        settings: See `SpeechSettings`.
        judge: Says which frames sound like speech.
        samples: `[S]`, what the features were computed of, for a judge that needs it.

    Raises:
        InvalidRequest: The judge needs samples, and there are none.
    """
    if not len(features):
        return ()
    evidence = judge.judge(features, samples)
    proven = np.concatenate([[0], np.cumsum(evidence.proof)])
    least = evidence.least_s * FRAMES_PER_S
    joined = _joined(_active(evidence), round(settings.join_s * FRAMES_PER_S))
    spoken = [
        (start, stop)
        for start, stop in joined
        if proven[stop] - proven[start] >= max(least, evidence.least_share * (stop - start))
    ]
    return _padded(spoken, round(settings.pad_s * FRAMES_PER_S), len(features))


def segment_speech(
    features: FloatArray,
    settings: SpeechSettings = DEFAULT_SPEECH,
    judge: SpeechJudge = DEFAULT_JUDGE,
    samples: FloatArray | None = None,
    *,
    skip_silence: bool = True,
) -> tuple[SpeechSegment, ...]:
    """Cut a recording into segments, at pauses where there are any and at its quietest places elsewhere.

    Args:
        features: As in `find_speech`.
        settings: See `SpeechSettings`.
        judge: As in `find_speech`.
        samples: The same.
        skip_silence: False = every frame is in a segment, speech or not; no judge is asked.

    Raises:
        InvalidRequest: As `find_speech`.
    """
    regions = find_speech(features, settings, judge, samples) if skip_silence else ((0, len(features)),)
    most = max(2, round(settings.max_segment_s * FRAMES_PER_S))
    longest = max((stop - start for start, stop in regions), default=0)
    loudness = _loudness(features) if longest > most else np.zeros(0, np.float32)
    pieces = [piece for region in regions for piece in _cut(region, loudness, most)]
    return _grouped(pieces, most, round(settings.pause_s * FRAMES_PER_S))


def _active(evidence: Evidence) -> list[Region]:
    """Runs above the lower level that reach the upper one somewhere."""
    reached = np.concatenate([[0], np.cumsum(evidence.level >= evidence.onset)])
    return [
        (start, stop)
        for start, stop in _runs(evidence.level >= evidence.hold)
        if reached[stop] > reached[start]
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
    mean: AnyArray = band_levels(features).mean(axis=1, dtype=np.float64)
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
