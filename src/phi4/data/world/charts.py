"""Bar charts with short labels and printed values, and questions about them, typed or spoken.

Bars lie, so that a label, its value and its bar stand in one line and are read one after the other.

Labels, colours and values are drawn independently, so nothing can be guessed without looking; most
questions have dozens of possible answers. Every answer is printed in the picture or counted from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from phi4.data.fonts import faces, load_face
from phi4.data.records import Record, Split, assistant, listed, stream, user
from phi4.data.render import NOISE, Glyph, Pixels, contrast, glyph_centres
from phi4.data.splits import draw, pick
from phi4.data.world.spoken import speak
from phi4.types import AudioPart, ImagePart, Message, Part

WIDTH_PX, HEIGHT_PX = 224, 112
EDGE_PX = 4
LABEL_PX = 56
MIN_BAR_PX = 8
MOST_BARS = 4
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "blue": (38, 84, 214),
    "green": (34, 150, 60),
    "yellow": (242, 206, 32),
    "purple": (140, 50, 170),
    "orange": (240, 128, 20),
    "black": (25, 25, 25),
    "grey": (140, 140, 140),
    "pink": (245, 130, 185),
    "brown": (120, 72, 35),
}
LABELS = listed(
    "cat dog sun tea egg pen cup hat bus box ice jam key map oil owl pie rug toy van fox hen bee "
    "ant cow fig nut ham gum ink jar lid mug net oak pig rat saw tin web"
)
QUESTIONS: dict[str, tuple[str, ...]] = {
    "value": ("What is the value of {label}?", "How much is {label}?", "What number is on {label}?"),
    "largest": ("Which bar is the largest?", "Which one is the highest?", "What is the largest?"),
    "smallest": ("Which bar is the smallest?", "Which one is the lowest?", "What is the smallest?"),
    "highest value": ("What is the largest number?", "What is the highest value?"),
    "lowest value": ("What is the smallest number?", "What is the lowest value?"),
    "colour": ("What colour is {label}?", "Which colour does {label} have?"),
    "label of colour": ("Which bar is {colour}?", "What is the name of the {colour} bar?"),
    "value of colour": ("What is the value of the {colour} bar?", "What number is on the {colour} bar?"),
    "count": ("How many bars are there?", "How many bars do you see?"),
}
HELD_OUT_QUESTIONS: dict[str, str] = {
    "value": "What value does {label} have?",
    "largest": "Which is the largest bar?",
    "smallest": "Which is the smallest bar?",
    "value of colour": "What value does the {colour} bar have?",
}
_MIX = (
    ("value",) * 8
    + ("largest", "smallest") * 3
    + ("colour",) * 2
    + ("value of colour", "label of colour", "highest value", "lowest value", "count")
)

# A slanted or light face at 13 pixels is hard even for people; charts keep to the upright ones.
CHART_FACES: dict[Split, tuple[str, ...]] = {
    split: tuple(f for f in faces(split) if "Italic" not in f and "Oblique" not in f)
    for split in ("train", "test", "examples")
}


@dataclass(frozen=True)
class Chart:
    """The facts a picture shows: label, value and colour of each bar, from top to bottom."""

    labels: tuple[str, ...]
    values: tuple[int, ...]
    colours: tuple[str, ...]

    @property
    def key(self) -> str:
        """Canonical form; decides the split."""
        return " ".join(f"{label}:{value}" for label, value in zip(self.labels, self.values, strict=True))

    @property
    def facts(self) -> dict[str, Any]:
        """The same as plain lists, for a record's metadata."""
        return {"labels": list(self.labels), "values": list(self.values), "colours": list(self.colours)}


def draw_chart(rng: np.random.Generator, most: int = MOST_BARS) -> Chart:
    """Draws 2 to `most` bars: labels, values from 1 to 99 and colours all different."""
    count = int(rng.integers(2, most + 1))
    labels = rng.choice(len(LABELS), count, replace=False)
    values = rng.choice(np.arange(1, 100), count, replace=False)
    colours = rng.choice(len(COLOURS), count, replace=False)
    names = tuple(COLOURS)
    return Chart(
        tuple(LABELS[int(i)] for i in labels),
        tuple(int(v) for v in values),
        tuple(names[int(c)] for c in colours),
    )


def most_bars(difficulty: float) -> int:
    """Returns how many bars a chart may have: 2 at difficulty 0, `MOST_BARS` at 1."""
    return 2 + round((MOST_BARS - 2) * difficulty)


def chart_picture(
    chart: Chart, face: str, rng: np.random.Generator, noise: float = 1.0
) -> tuple[Pixels, list[Glyph]]:
    """Returns `[112, 224, 3]` uint8, lines of label, value, bar, and its characters."""
    tint = tuple(int(v) for v in rng.integers(225, 256, 3))
    image = Image.new("RGB", (WIDTH_PX, HEIGHT_PX), tint)
    pen = ImageDraw.Draw(image)
    slot = (HEIGHT_PX - 2 * EDGE_PX) / len(chart.labels)
    font = load_face(face, fitting_size(face, slot))
    ink = (0, 0, 0) if rng.random() < 0.7 else (20, 30, 80)
    named = EDGE_PX + max(font.getlength(label) for label in chart.labels)
    counted = named + font.getlength("0") + font.getlength("00")
    base = round(counted) + int(rng.integers(5, 12))
    scale = (WIDTH_PX - base - EDGE_PX) * float(rng.uniform(0.8, 1.0)) / max(chart.values)
    thick = slot * float(rng.uniform(0.55, 0.85))
    glyphs: list[Glyph] = []
    for number, (label, value, colour) in enumerate(
        zip(chart.labels, chart.values, chart.colours, strict=True)
    ):
        middle = EDGE_PX + slot * (number + 0.5)
        end = base + max(MIN_BAR_PX, round(value * scale))
        edge = (60, 60, 60) if contrast(COLOURS[colour], (240, 240, 240)) < 1.7 else None
        pen.rectangle(
            (base, round(middle - thick / 2), end, round(middle + thick / 2)), COLOURS[colour], edge
        )
        for text, right in ((label, named), (str(value), counted)):
            left = right - font.getlength(text)
            pen.text((left, middle), text, ink, font, anchor="lm")
            glyphs += glyph_centres(text, left, middle, font)
    pen.line((base - 1, 2, base - 1, HEIGHT_PX - 2), fill=ink, width=2)
    pixels = np.asarray(image, np.float32)
    pixels = pixels + rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(
        rng.uniform(0, 5) * noise
    )
    return np.clip(pixels, 0, 255).astype(np.uint8), glyphs


def fitting_size(face: str, slot_px: float) -> int:
    """Largest font size, 12 to 30, at which lines of `slot_px` stay apart and labels leave room for bars."""
    for size in range(30, 12, -1):
        font = load_face(face, size)
        if sum(font.getmetrics()) <= slot_px + 2 and font.getlength("mug") <= LABEL_PX:
            return size
    return 12


def ask(chart: Chart, rng: np.random.Generator, split: Split) -> tuple[str, str, str]:
    """Returns (kind, question, answer) about a chart."""
    kind = pick(rng, _MIX)
    first = int(rng.integers(len(chart.labels)))
    forms = QUESTIONS[kind]
    if split != "train" and kind in HELD_OUT_QUESTIONS:
        forms = (*forms, HELD_OUT_QUESTIONS[kind])
    label, colour = chart.labels[first], chart.colours[first]
    question = pick(rng, forms).format(label=label, colour=colour)
    order = np.argsort(chart.values)
    answer = {
        "value": f"{label} {chart.values[first]}",
        "largest": chart.labels[int(order[-1])],
        "smallest": chart.labels[int(order[0])],
        "highest value": str(max(chart.values)),
        "lowest value": str(min(chart.values)),
        "colour": colour,
        "label of colour": label,
        "value of colour": str(chart.values[first]),
        "count": str(len(chart.labels)),
    }[kind]
    return kind, question, answer


def conversation(
    chart: Chart, rng: np.random.Generator, split: Split, turns: int, first: tuple[Part | str, ...]
) -> tuple[str, tuple[Message, ...], str]:
    """Asks about a chart once outside training, `turns` times in it: seeing it is the dear part of a row.

    Args:
        chart: What is asked about.
        rng: Random stream.
        split: Which wordings may be used.
        turns: Questions in training.
        first: What stands before the first question.

    Returns:
        Kind of the last question, the prompt up to it, its answer.
    """
    messages: list[Message] = []
    for _ in range((turns if split == "train" else 1) - 1):
        _, question, answer = ask(chart, rng, split)
        messages += [user(*first, question), assistant(answer)]
        first = ()
    kind, question, answer = ask(chart, rng, split)
    return kind, (*messages, user(*first, question)), answer


def _scene(
    name: str, split: Split, seed: int, index: int, difficulty: float
) -> tuple[np.random.Generator, Chart, Pixels, dict[str, Any]]:
    rng = stream(name, split, seed, index)
    most = most_bars(difficulty)
    chart = draw(rng, split, "chart", lambda r: draw_chart(r, most), lambda c: c.key)
    face = pick(rng, CHART_FACES[split])
    picture, glyphs = chart_picture(chart, face, rng, NOISE[split])
    facts = {
        "face": face,
        "texts": [text for pair in zip(chart.labels, chart.values, strict=True) for text in map(str, pair)],
        "glyphs": glyphs,
    }
    return rng, chart, picture, facts | chart.facts


def chart_qa(split: Split, seed: int, index: int, difficulty: float = 1.0) -> Record:
    """A bar chart with a typed question, in training four; an answer is a word, a number or both."""
    rng, chart, picture, facts = _scene("chart_qa", split, seed, index, difficulty)
    kind, prompt, answer = conversation(chart, rng, split, 4, (ImagePart(picture),))
    facts["kind"] = kind
    return Record("chart_qa", split, index, prompt, assistant(answer), (answer,), metadata=facts)


def spoken_chart_qa(split: Split, seed: int, index: int, difficulty: float = 1.0) -> Record:
    """A bar chart with a spoken question and no text at all: image, then audio."""
    rng, chart, picture, facts = _scene("spoken_chart_qa", split, seed, index, difficulty)
    facts["kind"], question, answer = ask(chart, rng, split)
    wave, made = speak(question.lower().rstrip("?"), rng, split)
    prompt = user(ImagePart(picture), AudioPart(wave))
    return Record(
        "spoken_chart_qa", split, index, (prompt,), assistant(answer), (answer,), metadata=facts | made
    )
