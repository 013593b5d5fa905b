"""Pictures of text: a few lines in one face, readable by construction.

`text_picture` chooses the largest sizes that fit, so that letters are at least `MIN_LETTER_PX` wide on
average and a patch of 14 pixels resolves them; ink and paper always differ enough for a person.
`fresh_picture` draws one with random words and numbers, different on every run, for a demonstration
that no table of answers could pass.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from phi4.data.fonts import available_faces, load_face
from phi4.data.records import Split
from phi4.data.splits import pick

MIN_LETTER_PX = 12.0
MIN_CONTRAST = 4.5
MAX_LINES = 3
MAX_SIZE_PX = 64
MARGIN_PX = 5
NOISE: dict[Split, float] = {"train": 1.0, "test": 1.0, "examples": 0.0}
"""Grain of the pictures of a split; the shipped examples are clean, which keeps their files small."""
Colour = tuple[int, int, int]
Pixels = NDArray[np.uint8]
Glyph = tuple[str, float, float]
"""A visible character and the pixel its middle stands on: (character, x, y)."""


@dataclass(frozen=True)
class Layout:
    """Where text goes: its lines, the font size, and the size of the picture."""

    lines: tuple[str, ...]
    size_px: int
    width_px: int
    height_px: int


def text_picture(
    text: str, face: str, rng: np.random.Generator, noise: float = 1.0
) -> tuple[Pixels, dict[str, Any]]:
    """Returns `[H, W, 3]` uint8 with `text` on it, and how it was drawn.

    Args:
        text: Words separated by single spaces; a line break in the picture counts as a space.
        face: A name from `fonts`.
        rng: Random stream: size, place, angle, colours, noise.
        noise: 0 for a clean picture, 1 for the training setting.
    """
    angle = float(rng.uniform(-3.0, 3.0)) if rng.random() < 0.6 else 0.0
    return paint(_layout(text, face, rng, abs(angle)), face, angle, rng, noise)


def paint(
    layout: Layout, face: str, angle: float, rng: np.random.Generator, noise: float
) -> tuple[Pixels, dict[str, Any]]:
    """Returns the picture of a layout, `[H, W, 3]` uint8, and how it was drawn; see `text_picture`."""
    ink, paper = draw_colours(rng)
    mask, glyphs = _mask(layout, face, angle, rng)
    if noise > 0 and rng.random() < 0.3:
        mask = mask.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.2, 0.7))))
    alpha = np.asarray(mask, np.float32)[..., None] / 255.0
    slope = np.linspace(-1.0, 1.0, layout.width_px, dtype=np.float32)[None, :, None] * rng.uniform(
        -10.0, 10.0
    )
    picture = (np.asarray(paper, np.float32) + slope) * (1.0 - alpha) + np.asarray(ink, np.float32) * alpha
    sigma = float(rng.uniform(0.0, 10.0)) * noise
    picture += rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(sigma)
    facts = {
        "face": face,
        "size_px": layout.size_px,
        "lines": list(layout.lines),
        "angle": round(angle, 2),
        "ink": list(ink),
        "paper": list(paper),
        "noise": round(sigma, 1),
        "glyphs": glyphs,
    }
    return np.clip(picture, 0, 255).astype(np.uint8), facts


def draw_colours(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Draws (ink, paper) whose contrast ratio is at least `MIN_CONTRAST`; a third is black and white."""
    if rng.random() < 0.35:
        dark, light = (tuple(int(v) for v in rng.integers(low, low + 41, 3)) for low in (0, 215))
        plain = ((dark[0], dark[1], dark[2]), (light[0], light[1], light[2]))
        return plain if rng.random() < 0.75 else plain[::-1]
    while True:
        red, green, blue, red2, green2, blue2 = (int(v) for v in rng.integers(0, 256, 6))
        ink, paper = (red, green, blue), (red2, green2, blue2)
        if contrast(ink, paper) >= MIN_CONTRAST:
            return ink, paper


def contrast(first: Colour, second: Colour) -> float:
    """Returns the contrast ratio of two colours, 1 to 21. Source: WCAG 2.1, relative luminance."""

    def luminance(colour: Colour) -> float:
        parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _layout(text: str, face: str, rng: np.random.Generator, angle: float) -> Layout:
    """Draws the picture's size and the lines; the font size lies between readable and what fits."""
    width, height = int(pick(rng, (224, 280, 336))), int(rng.integers(64, 113))
    for width_px, height_px in ((width, height), (336, 112)):
        choices = []
        for count in range(1, MAX_LINES + 1):
            lines = break_lines(text, count)
            largest = _largest_size(lines, face, width_px, height_px, angle)
            if largest and letter_px(lines, face, largest) >= MIN_LETTER_PX:
                choices.append((largest, lines))
        if choices:
            largest, lines = max(choices) if rng.random() < 0.7 else pick(rng, tuple(choices))
            sizes = [s for s in range(12, largest + 1) if letter_px(lines, face, s) >= MIN_LETTER_PX]
            return Layout(lines, int(pick(rng, tuple(sizes))), width_px, height_px)
    raise AssertionError(f"{text!r} cannot be drawn readably in {face}: too many letters for one picture")


def break_lines(text: str, count: int) -> tuple[str, ...]:
    """Returns `text` broken at spaces into at most `count` lines of about equal length."""
    width = max(max(len(word) for word in text.split()), -(-len(text) // count))
    while len(lines := textwrap.wrap(text, width, break_on_hyphens=False)) > count:
        width += 1
    return tuple(lines)


def letter_px(lines: tuple[str, ...], face: str, size_px: int) -> float:
    """Returns the average advance of a letter in pixels, over all lines."""
    font = load_face(face, size_px)
    return sum(font.getlength(line) for line in lines) / sum(len(line) for line in lines)


def _extent(lines: tuple[str, ...], font: ImageFont.FreeTypeFont) -> tuple[float, float]:
    ascent, descent = font.getmetrics()
    return max(font.getlength(line) for line in lines), float((ascent + descent) * len(lines))


def _largest_size(lines: tuple[str, ...], face: str, width_px: int, height_px: int, angle: float) -> int:
    """Largest font size at which the turned text fits the picture; 0 when none does."""
    sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    wide, high = _extent(lines, load_face(face, 40))
    scale = min(
        (width_px - 2 * MARGIN_PX) / (wide * cosine + high * sine),
        (height_px - 2 * MARGIN_PX) / (wide * sine + high * cosine),
    )
    # Hinting rounds widths up a little, hence the factor.
    size = min(MAX_SIZE_PX, int(40 * scale * 0.97))
    return size if size >= 12 else 0


def glyph_centres(text: str, left: float, middle: float, font: ImageFont.FreeTypeFont) -> list[Glyph]:
    """Returns (character, x, y) of every visible character of a line that begins at `left`, in pixels."""
    edges = [font.getlength(text[:count]) for count in range(len(text) + 1)]
    return [
        (char, left + (edges[i] + edges[i + 1]) / 2, middle)
        for i, char in enumerate(text)
        if not char.isspace()
    ]


def _turned(glyphs: list[Glyph], layout: Layout, angle: float, shift: tuple[int, int]) -> list[Glyph]:
    """Where characters are after `Image.rotate(angle, translate=shift)`: about the centre, then moved."""
    sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    centre_x, centre_y = layout.width_px / 2, layout.height_px / 2
    turned = []
    for char, x, y in glyphs:
        across, down = x - centre_x, y - centre_y
        new_x, new_y = across * cosine + down * sine + centre_x, down * cosine - across * sine + centre_y
        turned.append((char, round(float(new_x) + shift[0], 1), round(float(new_y) + shift[1], 1)))
    return turned


def _mask(
    layout: Layout, face: str, angle: float, rng: np.random.Generator
) -> tuple[Image.Image, list[Glyph]]:
    """The ink of the text, `L` mode, turned and moved as far as there is room, and its characters."""
    font = load_face(face, layout.size_px)
    wide, high = _extent(layout.lines, font)
    mask = Image.new("L", (layout.width_px, layout.height_px), 0)
    pen = ImageDraw.Draw(mask)
    left, top = (layout.width_px - wide) / 2, (layout.height_px - high) / 2
    centred = rng.random() < 0.5
    glyphs: list[Glyph] = []
    line_px = high / len(layout.lines)
    for number, line in enumerate(layout.lines):
        indent = (wide - font.getlength(line)) / 2 if centred else 0.0
        pen.text((round(left + indent), round(top + number * line_px)), line, 255, font)
        glyphs += glyph_centres(line, round(left + indent), top + (number + 0.5) * line_px, font)
    sine = abs(np.sin(np.radians(angle)))
    slack_x = max(0.0, (layout.width_px - wide - high * sine) / 2 - MARGIN_PX + 2)
    slack_y = max(0.0, (layout.height_px - high - wide * sine) / 2 - MARGIN_PX + 2)
    shift = (float(rng.uniform(-slack_x, slack_x)), float(rng.uniform(-slack_y, slack_y)))
    whole = (round(shift[0]), round(shift[1]))
    return mask.rotate(angle, Image.Resampling.BICUBIC, translate=whole), _turned(
        glyphs, layout, angle, whole
    )


def fresh_picture(rng: np.random.Generator, words: tuple[str, ...]) -> tuple[Pixels, str]:
    """Returns a new picture and the text on it: one or two words and a number.

    Args:
        rng: Random stream; `numpy.random.default_rng()` for a picture nobody has seen.
        words: Words to draw from.
    """
    parts = [pick(rng, words) for _ in range(int(rng.integers(1, 3)))] + [str(int(rng.integers(10, 10000)))]
    text = " ".join(parts)
    picture, _ = text_picture(text, pick(rng, available_faces()), rng, noise=0.5)
    return picture, text
