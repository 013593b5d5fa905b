"""Task instructions have the trained wording, letter by letter."""

from __future__ import annotations

import pytest

from phi4.errors import InvalidRequest
from phi4.processing.prompts import (
    AUDIO_LANGUAGES,
    checked_hot_words,
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


HOT = "These words may occur: Ada, Grace Hopper."


@pytest.mark.parametrize(
    "words",
    [
        "Ada, Grace  Hopper,,Ada",
        ["Ada", " Grace\nHopper ", ""],
        ("Ada", "Grace Hopper"),
        "Ada\nGrace Hopper;",
    ],
)
def test_hot_words_follow_the_trained_wording(words: str | list[str]) -> None:
    assert checked_hot_words(words) == ("Ada", "Grace Hopper")
    assert wording(transcribe_message("a.wav", words)) == f"Transcribe the audio clip into text. {HOT}"
    assert (
        wording(translate_message("a.wav", "de", hot_words=words)) == f"Translate the audio to German. {HOT}"
    )


@pytest.mark.parametrize("words", ["", " , \n", [], ()])
def test_no_hot_words_change_nothing(words: str | list[str]) -> None:
    assert transcribe_message("a.wav", words) == transcribe_message("a.wav")


def test_words_with_braces_are_words() -> None:
    assert wording(transcribe_message("a.wav", ["{language}"])).endswith("may occur: {language}.")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (7, "hot_words is a int; give a list of words"),
        (["a", 7], "hot_words is a list"),
        ({"a"}, "hot_words is a set"),
        ([str(number) for number in range(101)], "101 hot words; give at most 100"),
        (["x" * 65], "has 65 characters; .* at most 64"),
    ],
)
def test_other_hot_words_are_refused(words: object, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        checked_hot_words(words)  # type: ignore[arg-type]
