"""Speech: the same samples whatever was said before, every voice there, clear errors without the package."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from phi4.data.speech import Synthesizer, find_data, find_library, resample, synthesizer
from phi4.data.voices import DIALECTS, HELD_OUT_VARIANTS, TRAIN_VARIANTS, Voice
from phi4.data.world.charts import COLOURS, LABELS
from phi4.data.world.words import SALAD_WORDS, VOCABULARY
from phi4.errors import MissingExtra

SENTENCE = "the old cat is near the red house"


@pytest.mark.parametrize("variant", ["f1", "klatt", "Andy", "m3"])
def test_what_was_said_before_does_not_change_a_recording(variant: str) -> None:
    voice = Voice("en-us", variant, 170, 40)
    first = synthesizer().speak(SENTENCE, voice)
    synthesizer().speak("something else and longer", Voice("en-029", "klatt4", 140, 60))
    assert np.array_equal(first, synthesizer().speak(SENTENCE, voice))


def test_every_voice_is_installed_and_sounds_different() -> None:
    heard: dict[bytes, str] = {}
    for variant in TRAIN_VARIANTS + HELD_OUT_VARIANTS:
        wave = synthesizer().speak("hello there", Voice("en-us", variant))
        assert 0.3 < len(wave) / 22050 < 2.0, variant
        assert 0.01 < np.abs(wave).max() <= 1.0, variant
        assert wave.tobytes() not in heard, f"{variant} is {heard[wave.tobytes()]}"
        heard[wave.tobytes()] = variant


def test_every_dialect_sounds_different() -> None:
    said = {synthesizer().speak(SENTENCE, Voice(dialect, "m1")).tobytes() for dialect in DIALECTS}
    assert len(said) == len(DIALECTS)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_two_words_of_the_salad_sound_alike(dialect: str) -> None:
    sounds: dict[str, str] = {}
    for word in SALAD_WORDS:
        said = synthesizer().phonemes(word, dialect).translate(str.maketrans("", "", "'%,_"))
        assert said not in sounds, f"{word} sounds like {sounds[said]}"
        sounds[said] = word


@pytest.mark.parametrize("dialect", DIALECTS)
def test_labels_and_colours_of_charts_can_be_told_apart_by_ear(dialect: str) -> None:
    names = LABELS + tuple(COLOURS)
    assert len({synthesizer().phonemes(name, dialect) for name in names}) == len(names)


def test_the_vocabulary_is_as_large_as_promised() -> None:
    assert len(VOCABULARY) >= 450 and len(SALAD_WORDS) >= 400
    assert all(word.isalpha() and word == word.lower() for word in VOCABULARY)


def test_faster_speech_is_shorter() -> None:
    slow, fast = (synthesizer().speak(SENTENCE, Voice("en-gb", "f2", rate)) for rate in (130, 200))
    assert len(fast) < 0.8 * len(slow)


def test_resampling_changes_length_by_rate_and_speed() -> None:
    tone = np.sin(np.arange(22050) * 2 * np.pi * 440 / 22050).astype(np.float32)
    same, quick = resample(tone), resample(tone, 1.1)
    assert abs(len(same) - 16000) <= 1 and abs(len(quick) - 16000 / 1.1) <= 1
    peak = np.argmax(np.abs(np.fft.rfft(quick))) * 16000 / len(quick)
    assert peak == pytest.approx(484, abs=2), "playing faster raises the pitch"


def test_a_missing_library_says_which_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHI4_ESPEAK_LIBRARY", "/nowhere/libespeak-ng.so.1")
    with pytest.raises(MissingExtra, match=r"nowhere.*apt install libespeak-ng1"):
        find_library()


def test_missing_voices_say_which_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHI4_ESPEAK_DATA", "/nowhere")
    with pytest.raises(MissingExtra, match="espeak-ng-data, looked in '/nowhere'"):
        Synthesizer()


def test_the_data_folder_can_be_named_by_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    own = find_data(find_library())
    monkeypatch.setenv("PHI4_ESPEAK_DATA", str(own.parent))
    assert find_data("never opened") == own


def test_an_unknown_voice_is_named() -> None:
    with pytest.raises(MissingExtra, match=r"no voice 'xx-yy\+m1'"):
        synthesizer().speak("hello", Voice("xx-yy", "m1"))


def test_the_folder_of_links_is_shared_and_mended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    expected = synthesizer().speak(SENTENCE, Voice("en-gb", "f2"))
    for _ in range(2):
        assert np.array_equal(Synthesizer().speak(SENTENCE, Voice("en-gb", "f2")), expected)
    (home,) = tmp_path.iterdir()
    link = home / "espeak-ng-data" / "phontab"
    link.unlink()
    link.symlink_to("/nowhere")
    assert np.array_equal(Synthesizer().speak(SENTENCE, Voice("en-gb", "f2")), expected)
