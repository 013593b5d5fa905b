"""Recordings: a sentence spoken by a drawn voice in a drawn room, and the tasks made of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from phi4.data.augment import augment
from phi4.data.records import Record, Split, assistant, stream, user
from phi4.data.speech import resample, synthesizer
from phi4.data.splits import draw, pick
from phi4.data.voices import HELD_OUT_DIALECT, draw_voice
from phi4.data.world.numbers import number_words
from phi4.data.world.sentences import salad, sentence
from phi4.data.world.sums import pair_key
from phi4.processing.prompts import transcribe_message
from phi4.shapes import FloatArray
from phi4.types import AudioPart

SALAD_SHARE = 0.4
STRENGTH: dict[Split, float] = {"train": 1.0, "test": 0.5, "examples": 0.25}
"""How far room and noise go; held-out recordings are made in moderate conditions, stated in docs."""


def speak(text: str, rng: np.random.Generator, split: Split) -> tuple[FloatArray, dict[str, Any]]:
    """Returns `text` as a recording `[samples]` at 16 kHz, and how it was made.

    Args:
        text: Words to say.
        rng: Random stream; draws voice, speed, room and noise.
        split: Decides which voices may speak and how rough the conditions are.
    """
    voice = draw_voice(rng, split)
    speed = float(rng.uniform(0.9, 1.1))
    clean = resample(synthesizer().speak(text, voice), speed)
    heard, facts = augment(clean, rng, STRENGTH[split])
    facts |= {
        "voice": voice.name,
        "held_out_dialect": voice.dialect == HELD_OUT_DIALECT,
        "rate_wpm": voice.rate_wpm,
        "speed": round(speed, 3),
        "duration_s": round(len(heard) / 16000, 3),
        "spoken": text,
    }
    return heard, facts


def speech_transcribe(split: Split, seed: int, index: int, difficulty: float = 1.0) -> Record:
    """A spoken sentence or salad; the answer is its words in lower case, no punctuation.

    Args:
        split: Which content and voices may be used.
        seed: Seed of the whole data set.
        index: Position in it.
        difficulty: At 0 six in ten recordings are one or two words of salad, at 1 none is.
    """
    rng = stream("speech_transcribe", split, seed, index)
    facts: dict[str, Any] = {"kind": "sentence"}
    if rng.random() < 0.6 * (1.0 - difficulty):
        text, facts["kind"] = salad(rng, split, 1, 2), "words"
    elif rng.random() < SALAD_SHARE:
        text, facts["kind"] = salad(rng, split), "salad"
    else:
        text, facts["template"] = sentence(rng, split)
    wave, made = speak(text, rng, split)
    prompt = transcribe_message(wave)
    return Record(
        "speech_transcribe", split, index, (prompt,), assistant(text), (text,), metadata=facts | made
    )


def speech_qa(split: Split, seed: int, index: int, difficulty: float = 1.0) -> Record:
    """A spoken question with a typed answer: a short sum, the next number, or the number itself."""
    rng = stream("speech_qa", split, seed, index)
    numbers, spoken, answer = draw_question(rng, split)
    wave, made = speak(spoken, rng, split)
    made["numbers"] = numbers
    prompt = user(AudioPart(wave))
    return Record("speech_qa", split, index, (prompt,), assistant(answer), (answer,), metadata=made)


def draw_question(rng: np.random.Generator, split: Split) -> tuple[str, str, str]:
    """Draws (numbers, question in words, answer) of a split.

    A pair of operands is held out as in `sums`, a single number by itself, whatever is asked about it.
    """
    if rng.random() < 0.5:
        pair = draw(rng, split, "sum", lambda r: (int(r.integers(1, 50)), int(r.integers(1, 50))), pair_key)
        return pair_key(pair), *_about_pair(rng, *pair)
    number = draw(rng, split, "number", lambda r: int(r.integers(1, 999)))
    if rng.random() < 0.5:
        return str(number), f"what number comes after {number_words(number)}", str(number + 1)
    return str(number), f"write the number {number_words(number)}", str(number)


def _about_pair(rng: np.random.Generator, first: int, second: int) -> tuple[str, str]:
    """Returns (question, answer)."""
    if rng.random() < 0.5:
        ask = pick(rng, ("what is {} plus {}", "how much is {} plus {}", "add {} and {}"))
        return ask.format(number_words(first), number_words(second)), str(first + second)
    less, large = min(first, second), max(first, second)
    ask = pick(rng, ("what is {} minus {}", "how much is {} minus {}"))
    return ask.format(number_words(large), number_words(less)), str(large - less)
