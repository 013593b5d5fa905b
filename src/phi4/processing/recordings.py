"""Recordings of any length as parts a model hears well: short ones whole, long ones cut at pauses.

    recording, samples = processor.hear("lecture.mp3")
    parts = cut_recording(recording, config.speech)

The speech encoder looks at 40 s at a time, and speech models repeat themselves or invent words on silence and
on recordings much longer than those they were trained on. So what is longer than 40 s is cut at pauses into
segments of at most 30 s, and where nobody speaks there is no part, and no model is asked. A model that was
trained on shorter clips is given shorter parts (`SpeechConfig.max_segment_s`). Features are computed once;
parts are slices of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from phi4.configs import SpeechConfig
from phi4.processing.mel import cut_audio
from phi4.processing.speech_segments import WINDOW_S, SpeechSettings, segment_speech
from phi4.processing.speech_signs import DEFAULT_JUDGE, FRAMES_PER_S, SpeechJudge
from phi4.shapes import FloatArray
from phi4.types import AudioArrays

WHOLE = 4 / 3
"""What is no longer than this many of the longest segments is heard in one piece: up to 40 s, one window."""
TIMED_PAUSE_S = 0.5
"""With timestamps, a part ends at a pause of this length between padded stretches: about one a sentence."""


@dataclass(frozen=True)
class HeardPart:
    """A part of a recording, to be asked about by itself.

    Attributes:
        audio: Its features.
        start_s: Where speech begins in it, seconds from the beginning of the recording.
        end_s: Where speech ends in it.
        voiced: Stretches with speech inside, (start, end) in seconds, in order.
    """

    audio: AudioArrays
    start_s: float
    end_s: float
    voiced: tuple[tuple[float, float], ...]


def cut_recording(
    recording: AudioArrays,
    cfg: SpeechConfig,
    *,
    timestamps: bool = False,
    skip_silence: bool = True,
    settings: SpeechSettings | None = None,
    judge: SpeechJudge = DEFAULT_JUDGE,
    samples: FloatArray | None = None,
) -> tuple[HeardPart, ...]:
    """The parts of a recording, in order and without overlap; none when nobody speaks.

    Args:
        recording: The whole.
        cfg: Speech config of the model.
        timestamps: Cut at pauses even what could be heard in one piece, for the times.
        skip_silence: False = every second is in a part, for sound that is no speech.
        settings: What belongs together, and how long a part may be; None = as long as the model's
            training clips.
        judge: Says which frames sound like speech.
        samples: What the recording's features were computed of, for a judge that needs it.

    Raises:
        InvalidRequest: The judge needs samples, and there are none.
    """
    settings = settings or SpeechSettings(max_segment_s=cfg.max_segment_s)
    whole_s = min(WINDOW_S, WHOLE * settings.max_segment_s)
    if timestamps:
        settings = replace(settings, pause_s=min(settings.pause_s, TIMED_PAUSE_S))
    segments = segment_speech(recording.features, settings, judge, samples, skip_silence=skip_silence)
    voiced = [
        tuple(
            (start / FRAMES_PER_S, min(stop / FRAMES_PER_S, recording.duration_s)) for start, stop in regions
        )
        for regions in (segment.voiced for segment in segments)
    ]
    if segments and recording.duration_s <= whole_s and not timestamps:
        everything = tuple(stretch for stretches in voiced for stretch in stretches)
        return (HeardPart(recording, everything[0][0], everything[-1][1], everything),)
    return tuple(
        HeardPart(
            cut_audio(recording, segment.start, segment.stop, cfg),
            stretches[0][0],
            stretches[-1][1],
            stretches,
        )
        for segment, stretches in zip(segments, voiced, strict=True)
    )
