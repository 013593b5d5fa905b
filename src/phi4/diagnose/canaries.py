"""One canary a modality: prompts so small that a sound model cannot fail them, a broken one rarely passes.

Nothing is asked that a model has to know. A picture of a word and its blank twin, a tone and silence, must
not have the same effect: where they do, an encoder is cut off, or its adapter changes nothing. Of the
built-in nano more is known: it finds a word likelier when it sees it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from phi4.api import Phi4, load
from phi4.checkpoint import BUILTIN, locate_model
from phi4.data.fonts import BUILT_IN, load_face
from phi4.diagnose.case import Case, need
from phi4.diagnose.finding import Finding
from phi4.engine.generator import TargetScores
from phi4.engine.request import Request
from phi4.errors import Phi4Error
from phi4.shapes import AnyArray, FloatArray
from phi4.types import AudioPart, ImagePart, Message, Modality, Part, TextPart

PROMPT = "What is 2 + 3?"
READ, HEAR = "What does it say?", "Transcribe the audio clip into text."
WORD, WORDS = "kitchen", ("kitchen", "lamp 42", "garden")
SPOKEN = "the kitchen"
NEW_TOKENS = 24
MIN_REPEATS = 6
"""Answers this long that are one token over and over are no answers; shorter ones may be a number."""
MIN_EFFECT = 1e-4
"""Least difference of a log-probability that counts: above rounding, far below what a medium makes."""
_DAMAGED = "the weights are damaged or of another model: compare checksums, or fetch or export them again"
_PICTURE_PX, _FONT_PX = (224, 84), 40
_RATE_HZ, _TONE_HZ, _SECONDS = 16_000, 440.0, 1.0


def check_loading(case: Case) -> Finding:
    """Load the model as `phi4.load` does."""
    for found, check in ((case.files, "weights"), (case.tokenizer, "tokenizer")):
        need(found, check)
    asked = case.asked
    start = time.perf_counter()
    case.model = model = load(
        asked.model,
        device=asked.device,
        dtype=asked.dtype,
        attention=asked.attention,
        modalities=asked.modalities,
        adapter=asked.adapter,
        runner=case.runner,
    )
    info, seconds = model.info, time.perf_counter() - start
    return Finding("ok", f"{info.name} on {info.device}, {info.dtype}, loaded in {seconds:.1f} s")


def check_text(case: Case) -> Finding:
    """A greedy answer: some text, with finite log-probabilities, not one token over and over."""
    model = need(case.model, "loading")
    start = time.perf_counter()
    answer = model.chat(PROMPT, max_new_tokens=NEW_TOKENS)
    rate = len(answer.token_ids) / (time.perf_counter() - start)
    told = f"{PROMPT!r} -> {answer.text[:60]!r}, {rate:.0f} tokens/s"
    if not answer.text.strip():
        return Finding("error", f"{PROMPT!r} got an empty answer", _DAMAGED)
    if not _finite(model.score(PROMPT, answer.text)):
        return Finding("error", f"{told}; its log-probabilities are not finite", _DAMAGED)
    said = set(answer.token_ids) - set(model.tokenizer.tokens.stop_ids)
    if len(answer.token_ids) >= MIN_REPEATS and len(said) == 1:
        return Finding("error", f"{told}: one token over and over", _DAMAGED)
    return Finding("ok", told)


def check_picture(case: Case) -> Finding | None:
    """A picture of a word against a blank one, and against the same without the adapter."""
    model = need(case.model, "loading")
    if not _has(case, model, "vision"):
        return None
    picture = word_picture(WORD)
    media: list[Part] = [ImagePart(picture), ImagePart(np.full_like(picture, 255))]
    return judge_medium(model, "vision", ("a picture of a word", "a blank one"), media, READ, WORD)


def check_recording(case: Case) -> Finding | None:
    """A tone against silence, and against the same without the adapter."""
    model = need(case.model, "loading")
    if not _has(case, model, "speech"):
        return None
    media: list[Part] = [AudioPart(tone()), AudioPart(np.zeros_like(tone()))]
    return judge_medium(model, "speech", ("a tone", "silence"), media, HEAR, SPOKEN)


def check_nano(case: Case) -> Finding | None:
    """The built-in nano finds words likelier in pictures that show them."""
    if case.folder not in [_builtin(name) for name in BUILTIN]:
        return None
    model = need(case.model, "loading")
    if not _has(case, model, "vision"):
        return None
    seen = [_score(model, ImagePart(word_picture(word)), READ, word).total for word in WORDS]
    blank = ImagePart(np.full_like(word_picture(WORD), 255))
    unseen = [_score(model, blank, READ, word).total for word in WORDS]
    gain = float(np.sum(seen) - np.sum(unseen))
    told = f"seeing {len(WORDS)} words moves their log-probability by {gain:+.2f} against blank pictures"
    return Finding("ok", told) if gain > 0 else Finding("error", told, _DAMAGED)


def judge_medium(
    model: Phi4, part: Modality, names: tuple[str, str], media: Sequence[Part], prompt: str, target: str
) -> Finding:
    """The finding on an encoder.

    Args:
        model: The model.
        part: The encoder, which is also the name of its adapter.
        names: What the two media are, in words.
        media: The two.
        prompt: What is asked about them.
        target: The answer whose log-probabilities are compared.
    """
    full, empty = (_score(model, medium, prompt, target) for medium in media)
    told = f"{names[0]} and {names[1]} move log-probabilities by {_effect(full, empty):.2g}"
    if not (_finite(full) and _finite(empty)):
        return Finding("error", f"log-probabilities after {names[0]} are not finite", _DAMAGED)
    if _effect(full, empty) < MIN_EFFECT:
        return Finding("error", f"{names[0]} and {names[1]} have the same effect", _DAMAGED)
    if part not in model.info.adapters:
        return Finding("ok", f"{told}; there is no adapter {part}")
    alone = _effect(full, _score(model, media[0], prompt, target, adapters=()))
    if alone < MIN_EFFECT:
        advice = f"fetch the {part} adapter again, or export the model from a whole checkpoint"
        return Finding("error", f"{told}, but the adapter {part} changes nothing", advice)
    return Finding("ok", f"{told}, the adapter {part} by {alone:.2g}")


def word_picture(text: str) -> AnyArray:
    """Black on white, `[H, W, 3]` uint8, in Pillow's own face: the same on every machine."""
    picture = Image.new("RGB", _PICTURE_PX, "white")
    width_px, height_px = _PICTURE_PX
    ImageDraw.Draw(picture).text(
        (width_px / 2, height_px / 2), text, "black", load_face(BUILT_IN, _FONT_PX), anchor="mm"
    )
    return np.asarray(picture)


def tone() -> FloatArray:
    """A second of a sine, `[S]` at 16 kHz."""
    seconds = np.arange(round(_SECONDS * _RATE_HZ)) / _RATE_HZ
    return np.asarray(0.5 * np.sin(2 * np.pi * _TONE_HZ * seconds), np.float32)


def _score(
    model: Phi4, medium: Part, prompt: str, target: str, adapters: tuple[str, ...] | None = None
) -> TargetScores:
    message = Message("user", (medium, TextPart(prompt)))
    return model.generator.score(Request((message,), adapters=adapters), target)


def _effect(first: TargetScores, second: TargetScores) -> float:
    return float(np.max(np.abs(np.subtract(first.logprobs, second.logprobs))))


def _finite(scores: TargetScores) -> bool:
    return bool(np.isfinite(scores.logprobs).all())


def _has(case: Case, model: Phi4, part: Modality) -> bool:
    return part in model.info.modalities and part in (case.asked.modalities or model.info.modalities)


def _builtin(name: str) -> object:
    try:
        return locate_model(name)
    except Phi4Error:  # an installation without it
        return None
