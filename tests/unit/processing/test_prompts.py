"""Task instructions have the trained wording, letter by letter."""

from __future__ import annotations

import pytest

from phi4.errors import InvalidRequest
from phi4.processing.prompts import (
    AUDIO_LANGUAGES,
    language_name,
    split_translation,
    transcribe_message,
    translate_message,
)
from phi4.types import AudioPart, Message, TextPart


def wording(message: Message) -> str:
    assert message.parts[0] == AudioPart("a.wav")
    assert message.role == "user"
    (text,) = message.parts[1:]
    assert isinstance(text, TextPart)
    return text.text


def test_instructions_have_the_trained_wording() -> None:
    assert wording(transcribe_message("a.wav")) == "Transcribe the audio clip into text."
    assert wording(translate_message("a.wav", "German")) == "Translate the audio to German."
    assert wording(translate_message("a.wav", "fr", with_transcript=True)) == (
        "Transcribe the audio to text, and then translate the audio to French. Use <sep> as a separator "
        "between the original transcript and the translation."
    )


@pytest.mark.parametrize("code", AUDIO_LANGUAGES)
def test_languages_are_known_by_code_and_by_name(code: str) -> None:
    assert language_name(code) == language_name(AUDIO_LANGUAGES[code].upper()) == AUDIO_LANGUAGES[code]


def test_an_unknown_language_is_refused_with_the_list() -> None:
    with pytest.raises(InvalidRequest, match=r"'Klingon'.*German \(de\)"):
        translate_message("a.wav", "Klingon")


@pytest.mark.parametrize(
    ("answer", "parts"),
    [
        ("Hallo <sep> Hello", ("Hallo", "Hello")),
        ("a<sep>b<sep>c", ("a", "b<sep>c")),
        (" Hello ", ("", "Hello")),
    ],
)
def test_answers_are_split_at_the_first_separator(answer: str, parts: tuple[str, str]) -> None:
    assert split_translation(answer) == parts
