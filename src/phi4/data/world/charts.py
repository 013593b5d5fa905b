"""Bar charts with short labels and printed values, and questions about them, typed or spoken.

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
from phi4.types import AudioPart, ImagePart, TextPart

SIDE_PX = 224
MIN_BAR_PX = 8
GAP_PX = 6
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
    ("value",) * 6
    + ("largest", "smallest") * 3
    + ("value of colour", "label of colour") * 2
    + (
        "highest value",
        "lowest value",
        "colour",
        "count",
    )
)

# A slanted or light face at 13 pixels is hard even for people; charts keep to the upright ones.
CHART_FACES: dict[Split, tuple[str, ...]] = {
    split: tuple(f for f in faces(split) if "Italic" not in f and "Oblique" not in f)
    for split in ("train", "test", "examples")
}


@dataclass(frozen=True)
class Chart:
    """The facts a picture shows: label, value and colour of each bar, left to right."""

    labels: tuple[str, ...]
    values: tuple[int, ...]
    colours: tuple[str, ...]

    @property
    def key(self) -> str:
        """Canonical form; decides the split."""
        return " ".join(f"{label}:{value}" for label, value in zip(self.labels, self.values, strict=True))


def draw_chart(rng: np.random.Generator, most: int = 5) -> Chart:
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


def chart_picture(
    chart: Chart, face: str, rng: np.random.Generator, noise: float = 1.0
) -> tuple[Pixels, list[Glyph]]:
    """Returns `[224, 224, 3]` uint8, bars with values above and labels below, and its characters."""
    tint = tuple(int(v) for v in rng.integers(225, 256, 3))
    image = Image.new("RGB", (SIDE_PX, SIDE_PX), tint)
    pen = ImageDraw.Draw(image)
    left, right, base, top = (
        8,
        SIDE_PX - 6,
        SIDE_PX - 34 - int(rng.integers(0, 6)),
        30 + int(rng.integers(0, 8)),
    )
    slot = (right - left) / len(chart.labels)
    width = min(slot * 0.72, 52.0) * float(rng.uniform(0.8, 1.0))
    font = load_face(face, fitting_size(chart, face, slot))
    ink = (0, 0, 0) if rng.random() < 0.7 else (20, 30, 80)
    scale = (base - top) / max(chart.values)
    glyphs: list[Glyph] = []
    for number, (label, value, colour) in enumerate(
        zip(chart.labels, chart.values, chart.colours, strict=True)
    ):
        middle = left + slot * (number + 0.5)
        head = base - max(MIN_BAR_PX, round(value * scale))
        box = (round(middle - width / 2), head, round(middle + width / 2), base)
        edge = (60, 60, 60) if contrast(COLOURS[colour], (240, 240, 240)) < 1.7 else None
        pen.rectangle(box, fill=COLOURS[colour], outline=edge)
        pen.text((middle, head - 3), str(value), ink, font, anchor="mb")
        pen.text((middle, base + 6 + round(font.size * 0.8)), label, ink, font, anchor="ms")
        for text, row in ((str(value), head - 3 - font.size * 0.36), (label, base + 6 + font.size * 0.5)):
            glyphs += glyph_centres(text, middle - font.getlength(text) / 2, row, font)
    pen.line((left - 4, base, right + 2, base), fill=ink, width=2)
    pen.line((left - 4, top - 8, left - 4, base), fill=ink, width=2)
    pixels = np.asarray(image, np.float32)
    pixels = pixels + rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(
        rng.uniform(0, 5) * noise
    )
    return np.clip(pixels, 0, 255).astype(np.uint8), glyphs


def fitting_size(chart: Chart, face: str, slot_px: float) -> int:
    """Largest font size, 12 to 26, at which the widest label leaves a gap to its neighbour."""
    for size in range(26, 12, -1):
        if max(load_face(face, size).getlength(label) for label in chart.labels) <= slot_px - GAP_PX:
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
        "value": str(chart.values[first]),
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


def _scene(
    name: str, split: Split, seed: int, index: int, difficulty: float
) -> tuple[np.random.Generator, Pixels, tuple[str, str], dict[str, Any]]:
    rng = stream(name, split, seed, index)
    most = 2 + round(3 * difficulty)
    chart = draw(rng, split, "chart", lambda r: draw_chart(r, most), lambda c: c.key)
    face = pick(rng, CHART_FACES[split])
    picture, glyphs = chart_picture(chart, face, rng, NOISE[split])
    kind, question, answer = ask(chart, rng, split)
    facts = {
        "kind": kind,
        "face": face,
        "labels": list(chart.labels),
        "values": list(chart.values),
        "colours": list(chart.colours),
        "texts": [text for pair in zip(chart.values, chart.labels, strict=True) for text in map(str, pair)],
        "glyphs": glyphs,
    }
    return rng, picture, (question, answer), facts


def chart_qa(split: Split, seed: int, index: int, difficulty: float = 1.0) -> Record:
    """A bar chart with a typed question; the answer is one word or number."""
    _, picture, (question, answer), facts = _scene("chart_qa", split, seed, index, difficulty)
    prompt = user(ImagePart(picture), TextPart(question))
    return Record("chart_qa", split, index, (prompt,), assistant(answer), (answer,), metadata=facts)


def spoken_chart_qa(split: Split, seed: int, index: int, difficulty: float = 1.0) -> Record:
    """A bar chart with a spoken question and no text at all: image, then audio."""
    rng, picture, (question, answer), facts = _scene("spoken_chart_qa", split, seed, index, difficulty)
    wave, made = speak(question.lower().rstrip("?"), rng, split)
    prompt = user(ImagePart(picture), AudioPart(wave))
    return Record(
        "spoken_chart_qa", split, index, (prompt,), assistant(answer), (answer,), metadata=facts | made
    )
