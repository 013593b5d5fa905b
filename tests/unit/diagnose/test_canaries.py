"""Canaries live on a sound model and die on one whose answers no longer depend on what it is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phi4.api import Phi4
from phi4.configs import Phi4Config
from phi4.diagnose import canaries
from phi4.diagnose.canaries import (
    check_loading,
    check_nano,
    check_picture,
    check_recording,
    check_text,
    tone,
    word_picture,
)
from phi4.diagnose.case import Asked, Case
from phi4.diagnose.finding import Finding, judged
from phi4.engine.generator import Generator
from phi4.engine.preparing import LoadedProcessor
from phi4.engine.runner import SequenceSpec
from phi4.onnx import open_package
from phi4.processing.processor import Processor
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.shapes import FloatArray
from phi4.testing.scripted import Logits, ScriptedRunner, babbling, saying
from phi4.testing.tiny import tiny_config, write_tiny_tokenizer

VOCAB = 320
Check = Callable[[Case], Finding | None]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Phi4Tokenizer:
    return write_tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def answering(tokenizer: Phi4Tokenizer) -> Callable[..., Case]:
    """A case whose model has these logits; `config` and abilities of the runner may be given."""

    def make(logits: Logits, config: Phi4Config | None = None, **abilities: object) -> Case:
        config = config or tiny_config()
        processor = LoadedProcessor(Processor(config, tokenizer))
        runner = ScriptedRunner(logits, VOCAB, **abilities)  # type: ignore[arg-type]
        return Case(Asked(), model=Phi4(Generator(runner, processor, tokenizer)))

    return make


def loaded(folder: Path, **asked: object) -> Case:
    path = folder / "onnx"
    asked_for = Asked(str(folder), **asked)  # type: ignore[arg-type]
    case = Case(asked_for, folder, path, "onnx", files=open_package(path))
    case.tokenizer = Phi4Tokenizer.load(path)
    assert check_loading(case).verdict == "ok"
    return case


def deaf_and_blind(spec: SequenceSpec, history: Sequence[int]) -> FloatArray:
    """Depends on text and adapters, not on what stands at the places of media."""
    return babbling(VOCAB)(spec, [max(token, 0) for token in history])


def without_adapters(spec: SequenceSpec, history: Sequence[int]) -> FloatArray:
    return babbling(VOCAB)(replace(spec, adapters=()), history)


def not_a_number(spec: SequenceSpec, history: Sequence[int]) -> FloatArray:
    row = babbling(VOCAB)(spec, history)
    row[7] = np.nan
    return row


def test_sound_model_passes_every_canary_and_knows_no_facts_of_nano(whole: Path) -> None:
    case = loaded(whole)
    for check in (check_text, check_picture, check_recording):
        found = check(case)
        assert found is not None and found.verdict == "ok", found
    assert check_nano(case) is None


def test_loading_needs_what_the_checks_of_files_found() -> None:
    found = judged("loading", lambda: check_loading(Case(Asked())))
    assert found is not None and found.finding.startswith("left out: it needs what 'weights'")


def test_answer_is_shown_with_its_speed(answering: Callable[..., Case]) -> None:
    found = check_text(answering(babbling(VOCAB)))
    assert found.verdict == "ok" and "'What is 2 + 3?' -> '" in found.finding
    assert found.finding.endswith(" tokens/s")


def test_empty_answer_is_an_error(answering: Callable[..., Case], tokenizer: Phi4Tokenizer) -> None:
    found = check_text(answering(saying([tokenizer.tokens.end], 1, VOCAB)))
    assert found.verdict == "error" and "empty answer" in found.finding and found.advice


def test_one_token_over_and_over_is_an_error_but_not_a_short_number(
    answering: Callable[..., Case], tokenizer: Phi4Tokenizer
) -> None:
    five, end = tokenizer.encode_text("5")[0], tokenizer.tokens.end
    found = check_text(answering(saying([five], 1, VOCAB)))
    assert found.verdict == "error" and "over and over" in found.finding
    prompt = len(
        answering(babbling(VOCAB)).model.generator.processor.prepare(_user("What is 2 + 3?")).token_ids
    )
    assert check_text(answering(saying([five, five, end], prompt, VOCAB))).verdict == "ok"


def test_log_probabilities_that_are_not_finite_are_an_error(answering: Callable[..., Case]) -> None:
    for check in (check_picture, check_recording):
        found = check(answering(not_a_number))
        assert found is not None and found.verdict == "error" and "not finite" in found.finding


@pytest.mark.parametrize("check", [check_picture, check_recording])
def test_encoder_that_is_cut_off_is_an_error(answering: Callable[..., Case], check: Check) -> None:
    found = check(answering(deaf_and_blind))
    assert found is not None and found.verdict == "error" and "have the same effect" in found.finding


@pytest.mark.parametrize("check", [check_picture, check_recording])
def test_adapter_that_changes_nothing_is_an_error(answering: Callable[..., Case], check: Check) -> None:
    found = check(answering(without_adapters))
    assert found is not None and found.verdict == "error" and "changes nothing" in found.finding
    assert check(answering(babbling(VOCAB))).verdict == "ok"  # type: ignore[union-attr]


def test_model_without_adapters_is_judged_by_its_encoders_alone(answering: Callable[..., Case]) -> None:
    found = check_picture(answering(babbling(VOCAB), replace(tiny_config(), adapters=()), adapters=()))
    assert found is not None and found.verdict == "ok" and "there is no adapter vision" in found.finding


def test_parts_a_model_lacks_or_was_not_asked_for_are_not_tried(
    answering: Callable[..., Case], whole: Path
) -> None:
    text = answering(babbling(VOCAB), modalities=("text",))
    assert check_picture(text) is None and check_recording(text) is None
    seeing = loaded(whole, modalities=("text", "vision"))
    assert check_recording(seeing) is None and check_picture(seeing) is not None


@pytest.mark.parametrize(("sees", "verdict"), [(1.0, "ok"), (-1.0, "error")])
def test_nano_must_find_words_likelier_where_it_sees_them(
    answering: Callable[..., Case],
    tokenizer: Phi4Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    sees: float,
    verdict: str,
) -> None:
    wanted = [token for word in canaries.WORDS for token in tokenizer.encode_text(word)]
    blank: set[int] = set()  # what the runner puts where the first position of a blank picture stands

    def logits(spec: SequenceSpec, history: Sequence[int]) -> FloatArray:
        row = np.zeros(VOCAB, np.float32)
        row[wanted] = 0.0 if history[1] in blank else sees
        return row

    def watching(spec: SequenceSpec, history: Sequence[int]) -> FloatArray:
        blank.add(history[1])
        return np.zeros(VOCAB, np.float32)

    answering(watching).model.score("x", "y", images=np.full_like(word_picture("lamp"), 255))
    assert len(blank) == 1
    case = answering(logits)
    assert check_nano(case) is None, "not the built-in model"
    case.folder = Path("nano")
    monkeypatch.setattr(canaries, "locate_model", lambda name: Path("nano"))
    found = check_nano(case)
    assert found is not None and found.verdict == verdict


def test_nano_that_is_not_installed_is_nobodys_model(
    whole: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("phi4.checkpoint.hub.resources.files", lambda name: tmp_path)
    assert check_nano(Case(Asked(), folder=whole)) is None


def test_media_are_the_same_each_time_and_not_empty() -> None:
    assert np.array_equal(word_picture("lamp"), word_picture("lamp"))
    assert word_picture("lamp").shape == (84, 224, 3)
    assert not np.array_equal(word_picture("lamp"), word_picture("cup"))
    ink = np.argwhere(word_picture(max(canaries.WORDS, key=len)).min(axis=-1) < 128)
    assert ink.min() > 0 and ink[:, 0].max() < 83 and ink[:, 1].max() < 223, "inside the picture"
    assert tone().shape == (16000,) and 0.4 < tone().max() <= 0.5


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]
