"""Transcripts as files people play beside a recording: SRT and WebVTT, and OpenAI's `verbose_json`.

    Path("talk.srt").write_text(to_srt(transcript.segments), encoding="utf-8")

A segment of half a minute is too long to read, so it is shown as cues of two lines; their times share out the
seconds with speech in the segment by the number of characters. All times come from the sound and none from
the model, which WebVTT and `verbose_json` say themselves; SRT has no place for it.

Left out on purpose: times of words. Nothing here could state them honestly.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from phi4.processing.stitching import DERIVED, TranscriptSegment, join_texts, reason_of_all

LINE_CHARS = 42
CUE_CHARS = 2 * LINE_CHARS
_LEAST_CUE_MS = 1
_NOTE = "NOTE\nTimes are derived from the sound (pauses and number of characters), not stated by the model."
_CLAUSE_END = re.compile(r"(?<=[.!?;:,\u2026])\s+|(?<=[\u3002\uff01\uff1f\uff1b\uff0c\u3001])")
_SENTENCE_ENDS = (".", "!", "?", "\u2026", "\u3002", "\uff01", "\uff1f")
_BLANK = re.compile(r"\s+")


@dataclass(frozen=True)
class Cue:
    """A piece of text and when it is shown, in milliseconds from the beginning of the recording."""

    start_ms: int
    end_ms: int
    text: str


def make_cues(segments: Sequence[TranscriptSegment], max_chars: int = CUE_CHARS) -> tuple[Cue, ...]:
    """Short pieces of text with times that rise and do not overlap.

    Args:
        segments: Parts of a transcript, in order; those without text give no cue.
        max_chars: Longest cue; a single word that is longer stays whole.
    """
    cues: list[Cue] = []
    for segment in segments:
        pieces = _pieces(_BLANK.sub(" ", segment.text).strip(), max_chars)
        total, before = sum(map(len, pieces)), 0
        for piece in pieces:
            start = _clock_s(segment, before / total)
            before += len(piece)
            end = _clock_s(segment, before / total, is_end=True)
            start_ms = max(round(1000 * start), cues[-1].end_ms if cues else 0)
            cues.append(Cue(start_ms, max(round(1000 * end), start_ms + _LEAST_CUE_MS), piece))
    return tuple(cues)


def to_srt(segments: Sequence[TranscriptSegment]) -> str:
    """A SubRip file; empty for a transcript without text."""
    blocks = []
    for number, cue in enumerate(make_cues(segments), 1):
        # The one thing that may not stand in the text of a cue.
        text = _lines(cue.text.replace("-->", "->"))
        blocks.append(f"{number}\n{_time(cue.start_ms, ',')} --> {_time(cue.end_ms, ',')}\n{text}\n")
    return "\n".join(blocks)


def to_vtt(segments: Sequence[TranscriptSegment]) -> str:
    """A WebVTT file, which says itself that its times are derived, and which parts are not whole."""
    cut = [
        f"{_time(round(1000 * segment.start_s), '.')} to {_time(round(1000 * segment.end_s), '.')}"
        f" is not whole ({segment.finish_reason})."
        for segment in segments
        if segment.finish_reason != "stop"
    ]
    blocks = ["WEBVTT\n", f"{_NOTE}\n", *(f"NOTE\n{line}\n" for line in cut)]
    for cue in make_cues(segments):
        text = _lines(cue.text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        blocks.append(f"{_time(cue.start_ms, '.')} --> {_time(cue.end_ms, '.')}\n{text}\n")
    return "\n".join(blocks)


def verbose_json(
    segments: Sequence[TranscriptSegment],
    duration_s: float,
    *,
    task: str = "transcribe",
    language: str | None = None,
    temperature: float = 0.0,
) -> dict[str, Any]:
    """OpenAI's verbose form of a transcript.

    Args:
        segments: Parts of the transcript, in order.
        duration_s: Length of the recording.
        task: "transcribe" or "translate".
        language: Of the text, where that is certain: of a translation. The model does not tell what is
            spoken, so None becomes "unknown".
        temperature: What was drawn with.

    Returns:
        Its fields, and beside them `timing`: where the times come from, and `finish_reason` of each segment
        and of all: "stop", or why a text is not whole. What this model does not give is None (`avg_logprob`,
        `no_speech_prob`), never a number that means nothing.
    """
    return {
        "task": task,
        "language": language or "unknown",
        "duration": round(duration_s, 3),
        "text": join_texts(segment.text for segment in segments),
        "timing": DERIVED,
        "finish_reason": reason_of_all(segment.finish_reason for segment in segments),
        "segments": [
            {
                "id": number,
                "seek": round(100 * segment.start_s),
                "start": round(segment.start_s, 3),
                "end": round(segment.end_s, 3),
                "text": segment.text,
                "tokens": list(segment.token_ids),
                "temperature": temperature,
                "avg_logprob": None,
                "compression_ratio": round(compression_ratio(segment.text), 3),
                "no_speech_prob": None,
                "finish_reason": segment.finish_reason,
            }
            for number, segment in enumerate(segments)
        ],
    }


def compression_ratio(text: str) -> float:
    """Bytes of a text by bytes of the same compressed with zlib; above 2.4 it mostly repeats itself."""
    content = text.encode("utf-8", "replace")
    return len(content) / len(zlib.compress(content)) if content else 0.0


def _clock_s(segment: TranscriptSegment, share: float, *, is_end: bool = False) -> float:
    """The time at which this share of the segment's speech is over; pauses take no part.

    Between two stretches it is the end of the first for a cue that ends, and the beginning of the second for
    one that begins.
    """
    stretches = segment.voiced or ((segment.start_s, segment.end_s),)
    left = share * sum(end - start for start, end in stretches)
    for start, end in stretches:
        length = end - start
        if left < length - 1e-9 or (is_end and left <= length + 1e-9):
            return start + max(0.0, left)
        left -= length
    return stretches[-1][1]


def _pieces(text: str, max_chars: int) -> list[str]:
    """Cut a text into pieces that fit: at ends of sentences and clauses first, else between words."""
    pieces: list[str] = []
    for clause in filter(None, _CLAUSE_END.split(text)):
        for part in _wrapped(clause, max_chars):
            together = join_texts((pieces[-1], part)) if pieces else part
            if pieces and len(together) <= max_chars and not _is_full(pieces[-1], max_chars):
                pieces[-1] = together
            else:
                pieces.append(part)
    return pieces


def _is_full(text: str, max_chars: int) -> bool:
    """A sentence is not joined by another one unless both are short."""
    return text.endswith(_SENTENCE_ENDS) and 2 * len(text) >= max_chars


def _wrapped(text: str, width: int) -> list[str]:
    """Cut between words into parts of about equal length, each at most `width` where words allow it."""
    if len(text) <= width:
        return [text]
    if " " not in text:  # written without spaces
        count = -(-len(text) // width)
        size = -(-len(text) // count)
        return [text[at : at + size] for at in range(0, len(text), size)]
    goal = len(text) / -(-len(text) // width)
    parts: list[str] = []
    for word in text.split(" "):
        full = parts and (len(parts[-1]) >= goal or len(parts[-1]) + 1 + len(word) > width)
        if not parts or full:
            parts.append(word)
        else:
            parts[-1] += f" {word}"
    return parts


def _lines(text: str) -> str:
    """A cue in lines of readable length."""
    return "\n".join(_wrapped(text, LINE_CHARS))


def _time(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{rest:03d}"
