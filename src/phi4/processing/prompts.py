"""Task instructions with the wording the released model was trained on.

`transcribe_message(audio)` and `translate_message(audio, "German")` build the user message of a task;
`split_translation` takes a chain-of-thought answer apart. With audio tasks leave the system message out:
with one, the released model may echo it.

Left out on purpose: free questions about media, which need no fixed wording.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from phi4.errors import InvalidRequest
from phi4.types import AudioPart, AudioSource, Message, TextPart

TRANSCRIBE = "Transcribe the audio clip into text."
TRANSLATE = "Translate the audio to {language}."
TRANSLATE_COT = (
    "Transcribe the audio to text, and then translate the audio to {language}. "
    "Use <sep> as a separator between the original transcript and the translation."
)
SEPARATOR = "<sep>"
"""Ordinary text of several tokens, not a control token."""
HOT_WORDS = "These words may occur: {words}."
"""Not from the release, which documents no way to name words; what it does is in docs/media.md."""
MAX_HOT_WORDS = 100
MAX_HOT_WORD_CHARS = 64

HotWords = str | Sequence[str]

# Names as the instructions spell them, by ISO 639-1 code.
AUDIO_LANGUAGES = {
    "en": "English",
    "zh": "Chinese",
    "de": "German",
    "fr": "French",
    "it": "Italian",
    "ja": "Japanese",
    "es": "Spanish",
    "pt": "Portuguese",
}


def language_name(language: str, field: str = "language") -> str:
    """Return the English name for a name or an ISO 639-1 code, in the spelling of the instructions.

    Args:
        language: The name or code, in any case.
        field: What errors call it.

    Raises:
        InvalidRequest: Not one of the eight languages the released model hears and translates.
    """
    by_spelling = {name.lower(): name for name in AUDIO_LANGUAGES.values()} | AUDIO_LANGUAGES
    name = by_spelling.get(language.strip().lower())
    if name is None:
        valid = ", ".join(f"{name} ({code})" for code, name in AUDIO_LANGUAGES.items())
        raise InvalidRequest(f"{field} is {language!r}; the model hears and translates {valid}")
    return name


def transcribe_message(audio: AudioSource, hot_words: HotWords = ()) -> Message:
    """The user message that asks for a transcript.

    Args:
        audio: The recording.
        hot_words: See `checked_hot_words`; none = the trained wording alone.

    Raises:
        InvalidRequest: See `checked_hot_words`.
    """
    return Message("user", (AudioPart(audio), TextPart(_with_hot_words(TRANSCRIBE, hot_words))))


def translate_message(
    audio: AudioSource, to: str, with_transcript: bool = False, hot_words: HotWords = ()
) -> Message:
    """The user message that asks for a translation.

    Args:
        audio: The recording.
        to: Target language, English name or ISO 639-1 code.
        with_transcript: Ask for the transcript first (chain of thought); take the answer apart with
            `split_translation`.
        hot_words: See `checked_hot_words`; none = the trained wording alone.

    Raises:
        InvalidRequest: Unknown language, or see `checked_hot_words`.
    """
    wording = (TRANSLATE_COT if with_transcript else TRANSLATE).format(language=language_name(to))
    return Message("user", (AudioPart(audio), TextPart(_with_hot_words(wording, hot_words))))


def checked_hot_words(words: HotWords) -> tuple[str, ...]:
    """Words a recording is likely to hold, such as names, cleaned: white space is one space, none twice.

    They stand in the instruction as text, no more: the model may spell them better, may ignore them, and may
    write one that was not said.

    Args:
        words: A list, or one text with commas or line breaks between.

    Raises:
        InvalidRequest: Not text, more than `MAX_HOT_WORDS`, or one longer than `MAX_HOT_WORD_CHARS`.
    """
    several = re.split(r"[,;\n]", words) if isinstance(words, str) else words
    if not isinstance(several, list | tuple) or not all(isinstance(word, str) for word in several):
        raise InvalidRequest(f"hot_words is a {type(words).__name__}; give a list of words, or one text")
    found = tuple(dict.fromkeys(clean for word in several if (clean := " ".join(word.split()))))
    if len(found) > MAX_HOT_WORDS:
        raise InvalidRequest(f"there are {len(found)} hot words; give at most {MAX_HOT_WORDS}")
    longest = max(found, key=len, default="")
    if len(longest) > MAX_HOT_WORD_CHARS:
        raise InvalidRequest(
            f"a hot word has {len(longest)} characters; give words or names of at most {MAX_HOT_WORD_CHARS}"
        )
    return found


def _with_hot_words(wording: str, hot_words: HotWords) -> str:
    words = checked_hot_words(hot_words)
    return f"{wording} {HOT_WORDS.format(words=', '.join(words))}" if words else wording


def split_translation(answer: str) -> tuple[str, str]:
    """Split a chain-of-thought answer at the first separator into (transcript, translation).

    Without a separator all of it counts as translation, which is what was asked for in the end.
    """
    before, found, after = answer.partition(SEPARATOR)
    return (before.strip(), after.strip()) if found else ("", answer.strip())
