"""Pages: pictures filled with print, from which the vision tower learns letters.

A sign shows ten characters, a page seventy, for the same work of the tower. Pages are for training the
tower alone (their text is too long an answer for nano), so no split but "train" is of use.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from phi4.data.fonts import faces, load_face
from phi4.data.records import Record, Split, assistant, stream, user
from phi4.data.render import MARGIN_PX, NOISE, Layout, paint
from phi4.data.splits import draw, pick
from phi4.data.world.read_text import invented, letters, mixed, number, words
from phi4.types import ImagePart, TextPart

SIZES_PX = ((224, 112), (224, 112), (224, 224), (112, 112))
"""Whole crops, so that nothing is resized."""
LETTER_SIZES_PX = (15, 34)


def page(split: Split, seed: int, index: int, difficulty: float = 1.0) -> Record:
    """A picture full of words, invented words, letters and numbers; the answer is all of it, line by line.

    Args:
        split: Which fonts and pieces may be used; a piece cut in half to fit a line is not looked at again.
        seed: Seed of the whole data set.
        index: Position in it.
        difficulty: 0 gives clean pages, 1 blur and noise as in the other pictures.
    """
    rng = stream("page", split, seed, index)
    face = pick(rng, faces(split))
    width_px, height_px = pick(rng, SIZES_PX)
    size_px = int(rng.integers(*LETTER_SIZES_PX))
    angle = float(rng.uniform(-2.0, 2.0)) if rng.random() < 0.3 else 0.0
    lines = _lines(rng, split, face, size_px, width_px, height_px)
    layout = Layout(lines, size_px, width_px, height_px)
    picture, made = paint(layout, face, angle, rng, NOISE[split] * difficulty)
    text = " ".join(lines)
    facts: dict[str, Any] = {"texts": [text]} | made
    prompt = user(ImagePart(picture), TextPart("Read the page."))
    return Record("page", split, index, (prompt,), assistant(text), (text,), metadata=facts)


def _lines(
    rng: np.random.Generator, split: Split, face: str, size_px: int, width_px: int, height_px: int
) -> tuple[str, ...]:
    """As many lines as the height holds, each of as many pieces as its width holds."""

    def piece() -> str:
        return draw(rng, split, "read_text", _piece)

    font = load_face(face, size_px)
    room_px = width_px - 2 * MARGIN_PX
    lines = []
    for _ in range(max(1, int((height_px - 2 * MARGIN_PX) // sum(font.getmetrics())))):
        line = piece()
        while font.getlength(line) > room_px:
            line = line[: len(line) // 2].strip()
        while font.getlength(longer := f"{line} {piece()}") <= room_px:
            line = longer
        lines.append(line)
    return tuple(lines)


def _piece(rng: np.random.Generator) -> str:
    kind = int(rng.integers(5))
    if kind == 0:
        return letters(rng, int(rng.integers(1, 7)))
    if kind == 1:
        return number(rng, 6)
    makers = (lambda: words(rng, 1), lambda: invented(rng), lambda: mixed(rng))
    return makers[kind - 2]()
