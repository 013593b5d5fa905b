"""Parts of a recording, heard one by one, become one transcript again.

    segments = [TranscriptSegment(part.start_s, part.end_s, text) for part, text in ...]
    join_texts(segment.text for segment in segments)

Parts are cut at pauses and do not overlap, so texts are only put side by side: nothing is searched for twice
and nothing is left out. Times are those of the parts, found in the sound (voice activity); the model states
none. Plain values: no medium is opened here.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

from phi4.processing.prompts import SEPARATOR, split_translation
from phi4.types import Completion, FinishReason, Timing, Usage

DERIVED = "derived"
"""What formats that can say so call the times: of the sound, not of the model."""
_NO_SPACE_NAMES = ("CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "FULLWIDTH", "BOPOMOFO")


@dataclass(frozen=True)
class TranscriptSegment:
    """What was said in one part.

    Attributes:
        start_s: Where the part begins in the recording, in seconds; derived from the sound.
        end_s: Where it ends.
        text: What was said, without white space around it.
        token_ids: Tokens the model wrote, its stop token included.
        finish_reason: Why the text ends.
        voiced: Stretches with speech inside, (start, end) in seconds; empty = not known.
    """

    start_s: float
    end_s: float
    text: str
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason = "stop"
    voiced: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Transcript(Completion):
    """A whole recording written down; as a `Completion` it is the sum of its parts.

    Attributes:
        segments: The parts in order; empty = nobody speaks, and no model was asked.
        duration_s: Length of the recording.
    """

    segments: tuple[TranscriptSegment, ...] = ()
    duration_s: float = 0.0


def join_texts(texts: Iterable[str]) -> str:
    """Put texts side by side, with a space unless one side is written without (Chinese, Japanese)."""
    joined = ""
    for text in map(str.strip, texts):
        if joined and text and not (_is_spaceless(joined[-1]) or _is_spaceless(text[0])):
            joined += " "
        joined += text
    return joined


def reason_of_all(reasons: Iterable[FinishReason]) -> FinishReason:
    """Why a text that was put together ends: the first of its parts' reasons that is no ordinary end."""
    return next((reason for reason in reasons if reason != "stop"), "stop")


def join_translations(texts: Sequence[str]) -> str:
    """Put answers side by side that hold transcript and translation: transcripts first, then translations."""
    if not any(SEPARATOR in text for text in texts):
        return join_texts(texts)
    pairs = [split_translation(text) for text in texts]
    said, translated = (join_texts(side) for side in zip(*pairs, strict=True))
    return f"{said} {SEPARATOR} {translated}"


def stitch(
    spans: Sequence[TranscriptSegment], answers: Sequence[Completion], duration_s: float
) -> Transcript:
    """Answers to the parts of a recording as one answer.

    Args:
        spans: One for each part, with its times; their texts are not looked at.
        answers: What the model wrote for each, in the same order.
        duration_s: Length of the recording.

    Returns:
        Text and tokens side by side, counts and work added up. It was cut where a part was, and its times are
        from the first request to the last token.
    """
    segments = tuple(
        replace(
            span, text=answer.text.strip(), token_ids=answer.token_ids, finish_reason=answer.finish_reason
        )
        for span, answer in zip(spans, answers, strict=True)
    )
    return Transcript(
        text=answers[0].text if len(answers) == 1 else join_translations([s.text for s in segments]),
        token_ids=tuple(token for answer in answers for token in answer.token_ids),
        tool_calls=(),
        finish_reason=reason_of_all(answer.finish_reason for answer in answers),
        usage=_usage([answer.usage for answer in answers]),
        timing=_timing([answer.timing for answer in answers]),
        adapters=answers[0].adapters if answers else (),
        logprobs=tuple(one for answer in answers for one in answer.logprobs),
        segments=segments,
        duration_s=duration_s,
    )


def _usage(counts: Sequence[Usage]) -> Usage:
    return Usage(
        **{field.name: sum(getattr(count, field.name) for count in counts) for field in fields(Usage)}
    )


def _timing(times: Sequence[Timing]) -> Timing:
    """Requests of one call run together: work adds up, waiting does not."""
    if not times:
        return Timing()
    work = ("encode_s", "prefill_s", "rope_crossings", "drafted", "accepted")
    return Timing(
        **{name: sum(getattr(time, name) for time in times) for name in work},
        first_token_s=min(time.first_token_s for time in times),
        total_s=max(time.total_s for time in times),
    )


def _is_spaceless(character: str) -> bool:
    return unicodedata.name(character, "").startswith(_NO_SPACE_NAMES)
