"""Recordings of any length through the Python API: whole, in parts, and silence without a model."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import phi4
from phi4.errors import InvalidArtifact, InvalidMedia, InvalidRequest
from phi4.processing.mel import audio_arrays
from phi4.processing.prompts import SEPARATOR
from phi4.processing.stitching import Transcript
from phi4.testing.media import audio_bytes
from phi4.testing.tiny import write_tiny_checkpoint
from phi4.testing.voices import talk

FEW: dict[str, Any] = {"max_new_tokens": 5}
SHORT = talk(0.5, 1.0, 0.7, 1.2, 0.4)
LONG = talk(0.5, 9.0, 1.5, 12.0, 2.8, 11.0, 0.6, 10.0, 0.5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> phi4.Phi4:
    folder: Path = tmp_path_factory.mktemp("tiny")
    write_tiny_checkpoint(folder)
    return phi4.load(folder)


@pytest.fixture
def requests(model: phi4.Phi4, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many requests each call of the generator got."""
    counts: list[int] = []
    generate = model.generator.generate

    def counting(asked: Any) -> Any:
        counts.append(len(asked))
        return generate(asked)

    monkeypatch.setattr(model.generator, "generate", counting)
    return counts


def test_a_short_recording_is_heard_whole_and_told_when(model: phi4.Phi4, requests: list[int]) -> None:
    heard = model.transcribe(SHORT, **FEW)
    asked = model.chat("Transcribe the audio clip into text.", audio=SHORT, **FEW)
    assert requests == [1, 1]
    assert (heard.text, heard.token_ids, heard.usage) == (asked.text, asked.token_ids, asked.usage)
    (segment,) = heard.segments
    assert segment.start_s == pytest.approx(0.3, abs=0.15) and segment.end_s == pytest.approx(3.6, abs=0.2)
    assert heard.duration_s == 3.8 and heard.adapters == ("speech",)


def test_a_long_recording_is_heard_in_parts_that_share_one_run(model: phi4.Phi4, requests: list[int]) -> None:
    heard = model.transcribe(LONG, **FEW)
    assert isinstance(heard, Transcript) and requests == [2]
    first, second = heard.segments
    assert first.end_s == pytest.approx(23.2, abs=0.2) and second.start_s == pytest.approx(25.6, abs=0.2)
    assert heard.text == f"{first.text} {second.text}".strip()
    assert heard.token_ids == first.token_ids + second.token_ids
    assert heard.usage.completion_tokens == len(heard.token_ids)
    assert heard.usage.audio_tokens < 12.5 * 46  # pauses between parts are not heard
    start, stop = (round(16000 * at) for at in (second.start_s, second.end_s))
    alone = model.transcribe(LONG[start : stop + 240], skip_silence=False, **FEW)
    assert alone.token_ids == second.token_ids


def test_timestamps_cut_at_every_sentence(model: phi4.Phi4) -> None:
    assert len(model.transcribe(SHORT, timestamps=True, **FEW).segments) == 1
    segments = model.transcribe(LONG, timestamps=True, **FEW).segments
    assert len(segments) == 3
    assert all(a.end_s <= b.start_s for a, b in itertools.pairwise(segments))


def test_silence_is_an_empty_transcript_and_asks_no_model(
    model: phi4.Phi4, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.generator.runner, "open", lambda spec: pytest.fail("the model was asked"))
    for seconds in (1, 70):
        noise = np.random.default_rng(0).normal(0, 0.01, 16000 * seconds).astype(np.float32)
        for recording in (noise, np.zeros_like(noise)):
            heard = model.transcribe(recording)
            assert (heard.text, heard.token_ids, heard.segments) == ("", (), ())
            assert heard.finish_reason == "stop" and heard.duration_s == seconds


def test_everything_is_heard_on_request(model: phi4.Phi4) -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 16000 * 2).astype(np.float32)
    assert model.transcribe(noise, skip_silence=False, **FEW).usage.audio_tokens == 25
    long = np.random.default_rng(0).normal(0, 0.01, 16000 * 65).astype(np.float32)
    segments = model.transcribe(long, skip_silence=False, **FEW).segments
    assert (
        len(segments) >= 3
        and segments[0].start_s == 0.0
        and segments[-1].end_s == pytest.approx(65, abs=0.05)
    )


def test_files_bytes_and_features_are_heard_alike(model: phi4.Phi4, tmp_path: Path) -> None:
    content = audio_bytes(SHORT, 16000, subtype="FLOAT")
    (tmp_path / "talk.wav").write_bytes(content)
    speech = model.config.speech
    assert speech is not None
    features = audio_arrays(SHORT, speech)
    answers = {
        model.transcribe(s, **FEW).token_ids for s in (SHORT, content, tmp_path / "talk.wav", features)
    }
    assert len(answers) == 1


def test_hot_words_are_part_of_the_prompt(model: phi4.Phi4) -> None:
    plain, hot = (model.transcribe(SHORT, hot_words=words, **FEW) for words in ((), "Ada, Grace"))
    words = len(model.tokenizer.encode_text(" These words may occur: Ada, Grace."))
    assert abs(hot.usage.prompt_tokens - plain.usage.prompt_tokens - words) <= 1


def test_translations_of_parts_are_joined_apart_from_transcripts(
    model: phi4.Phi4, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(model.translate(LONG, "de", **FEW).segments) == 2
    whole = model.translate(SHORT, "German", **FEW)
    assert whole.token_ids == model.chat("Translate the audio to German.", audio=SHORT, **FEW).token_ids
    generate = model.generator.generate

    def told(asked: Any) -> Any:
        return [phi4.Completion(f"eins {SEPARATOR} one", *_rest(answer)) for answer in generate(asked)]

    monkeypatch.setattr(model.generator, "generate", told)
    assert model.translate(LONG, "de", with_transcript=True, **FEW).text == "eins eins <sep> one one"


def _rest(answer: phi4.Completion) -> tuple[Any, ...]:
    return (answer.token_ids, (), answer.finish_reason, answer.usage, answer.timing)


def test_the_longest_part_is_chosen_and_checked(model: phi4.Phi4) -> None:
    heard = model.transcribe(LONG, max_segment_s=10.0, **FEW)
    assert max(s.end_s - s.start_s for s in heard.segments) <= 10.0 and len(heard.segments) >= 5
    for ask in (model.transcribe, lambda *given, **named: model.translate(*given, "de", **named)):
        with pytest.raises(InvalidRequest, match=r"max_segment_s is 90.0; give 1 to 40"):
            ask(SHORT, max_segment_s=90.0)


def test_wrong_options_are_told_before_anything_is_decoded(model: phi4.Phi4) -> None:
    for options, words in (
        ({"max_tokens": 3}, "max_tokens.*max_new_tokens"),
        ({"hot_words": 7}, "hot_words is a int"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            model.transcribe(b"no recording", **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="Klingon"):
        model.translate(b"no recording", "Klingon")
    with pytest.raises(InvalidMedia, match=r"no known format|text file"):
        model.transcribe(b"no recording")


def test_a_model_of_voice_activity_judges_instead_of_ours(
    model: phi4.Phi4, voice_model: Callable[..., Path]
) -> None:
    judged = phi4.load(model.path or "", voice_activity=voice_model("energy"))
    speech = model.config.speech
    assert speech is not None
    noise = np.random.default_rng(0).normal(0, 0.1, 32000).astype(np.float32)
    assert model.transcribe(noise, **FEW).segments == ()
    assert len(judged.transcribe(noise, **FEW).segments) == 1
    assert judged.transcribe(np.zeros_like(noise), **FEW).segments == ()
    features = audio_arrays(noise, speech)
    with pytest.raises(InvalidRequest, match="hears samples, and this recording was given as features"):
        judged.transcribe(features, **FEW)
    assert judged.transcribe(features, skip_silence=False, **FEW).usage.audio_tokens == 25


def test_a_file_of_no_voice_activity_is_refused_before_a_model_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InvalidArtifact, match=r"gone\.onnx: no such file; a voice-activity model has"):
        phi4.load("no/such/model", voice_activity=tmp_path / "gone.onnx")


def test_a_model_without_ears_says_so(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path, "mini", max_positions=64)
    with pytest.raises(InvalidRequest, match="takes no recordings"):
        phi4.load(tmp_path).transcribe(SHORT)
