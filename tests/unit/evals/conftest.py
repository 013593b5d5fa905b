"""A tiny world for evaluation: pictures of one colour, tones of one pitch, models that sense or guess."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import soundfile
from PIL import Image

from phi4.engine.request import Request
from phi4.evals.samples import Sample
from phi4.evals.scorers import Expected, exact_answer
from phi4.evals.tasks import Task
from phi4.processing.audio import load_audio
from phi4.processing.images import load_image
from phi4.types import AudioPart, Completion, ImagePart, Message, TextPart, Timing, Usage

COLOURS = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255), "black": (0, 0, 0)}
PITCHES_HZ = {"low": 200, "high": 1000}


def picture(colour: str, size: tuple[int, int] = (20, 10)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, COLOURS[colour]).save(out, "PNG")
    return out.getvalue()


def tone(pitch: str, seconds: float = 0.1) -> bytes:
    out = io.BytesIO()
    time_s = np.arange(int(seconds * 16000)) / 16000
    soundfile.write(out, 0.5 * np.sin(2 * np.pi * PITCHES_HZ[pitch] * time_s), 16000, format="WAV")
    return out.getvalue()


def completion(text: str) -> Completion:
    return Completion(text, (1, 2), (), "stop", Usage(5, 2), Timing())


def sense(request: Request) -> str:
    """What is really in the request's media: colour and pitch."""
    words = []
    for part in request.messages[-1].parts:
        if isinstance(part, ImagePart):
            source = part.source
            image = Image.fromarray(source) if isinstance(source, np.ndarray) else load_image(source)
            pixel = image.getpixel((0, 0))
            words.append(next((name for name, value in COLOURS.items() if value == pixel), "white"))
        elif isinstance(part, AudioPart):
            source = part.source
            samples = source if isinstance(source, np.ndarray) else load_audio(source)
            crossings = int((np.diff(np.signbit(samples)) != 0).sum())
            words.append("high" if crossings > 100 else "low" if crossings > 10 else "quiet")
    return " ".join(words)


@dataclass
class Senser:
    """Answers from the media, unless its adapter is off; remembers what it was asked."""

    requests: list[Request] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        self.requests += requests
        self.batches.append(len(requests))
        return [completion("?" if r.adapters == () else sense(r)) for r in requests]


class Assumer(Senser):
    """Senses, but takes silence for the low tone: half right without sound, never without a picture."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        return [completion(c.text.replace("quiet", "low")) for c in super().generate(requests)]


class Guesser:
    """Never looks: says the likeliest answer."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        return [completion("red") for _ in requests]


def colour_samples(n: int) -> list[Sample]:
    names = list(COLOURS)
    rows = []
    for i in range(n):
        parts = (ImagePart(picture(names[i % 4])), TextPart("Which colour?"))
        rows.append(Sample(f"colour/{i}", (Message("user", parts),), Expected(names[i % 4])))
    return rows


def both_samples(n: int) -> list[Sample]:
    colours, pitches = list(COLOURS), list(PITCHES_HZ)
    rows = []
    for i in range(n):
        colour, pitch = colours[i % 4], pitches[(i // 4) % 2]
        parts = (ImagePart(picture(colour)), AudioPart(tone(pitch)))
        rows.append(Sample(f"both/{i}", (Message("user", parts),), Expected(f"{colour} {pitch}")))
    return rows


@pytest.fixture
def senser() -> Senser:
    return Senser()


@pytest.fixture
def assumer() -> Assumer:
    return Assumer()


@pytest.fixture
def guesser() -> Guesser:
    return Guesser()


@pytest.fixture
def colour_task() -> Task:
    return Task("colour", "name the colour", "exact", ("image",), exact_answer, colour_samples, 4, 0.9)


@pytest.fixture
def both_task() -> Task:
    return Task("both", "colour and pitch", "exact", ("image", "audio"), exact_answer, both_samples, 4, 0.7)


@pytest.fixture
def text_task() -> Task:
    def samples(n: int) -> list[Sample]:
        return [
            Sample(f"text/{i}", (Message("user", (TextPart("Say red"),)),), Expected("red")) for i in range(n)
        ]

    return Task("text", "repeat a word", "exact", (), exact_answer, samples, 4, 0.9)
