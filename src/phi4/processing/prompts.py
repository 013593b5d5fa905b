"""Task instructions with the wording the released model was trained on.

`transcribe_message(audio)` and `translate_message(audio, "German")` build the user message of a task;
`split_translation` takes a chain-of-thought answer apart. With audio tasks leave the system message out:
with one, the released model may echo it.

Left out on purpose: free questions about media, which need no fixed wording.
"""

from __future__ import annotations

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


def language_name(language: str) -> str:
    """Return the English name for a name or an ISO 639-1 code, in the spelling of the instructions.

    Raises:
        InvalidRequest: Not one of the eight languages the released model hears and translates.
    """
    by_spelling = {name.lower(): name for name in AUDIO_LANGUAGES.values()} | AUDIO_LANGUAGES
    name = by_spelling.get(language.strip().lower())
    if name is None:
        valid = ", ".join(f"{name} ({code})" for code, name in AUDIO_LANGUAGES.items())
        raise InvalidRequest(f"language {language!r} is not one the model translates; valid are {valid}")
    return name


def transcribe_message(audio: AudioSource) -> Message:
    """The user message that asks for a transcript."""
    return Message("user", (AudioPart(audio), TextPart(TRANSCRIBE)))


def translate_message(audio: AudioSource, to: str, with_transcript: bool = False) -> Message:
    """The user message that asks for a translation.

    Args:
        audio: The recording.
        to: Target language, English name or ISO 639-1 code.
        with_transcript: Ask for the transcript first (chain of thought); take the answer apart with
            `split_translation`.

    Raises:
        InvalidRequest: Unknown language.
    """
    template = TRANSLATE_COT if with_transcript else TRANSLATE
    return Message("user", (AudioPart(audio), TextPart(template.format(language=language_name(to)))))


def split_translation(answer: str) -> tuple[str, str]:
    """Split a chain-of-thought answer at the first separator into (transcript, translation).

    Without a separator all of it counts as translation, which is what was asked for in the end.
    """
    before, found, after = answer.partition(SEPARATOR)
    return (before.strip(), after.strip()) if found else ("", answer.strip())
