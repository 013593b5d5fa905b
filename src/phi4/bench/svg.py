"""Shapes and words of an SVG picture, written by hand: no library, no screen."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import escape

INK, FAINT, GREY = "#222222", "#666666", "#8a8f98"
_FONT = "font-family='sans-serif'"


def write_svg(path: Path, lines: Iterable[str], width: int, height: int) -> None:
    """Write elements on white; an old file is replaced.

    Args:
        path: The file, by convention ending in .svg.
        lines: Elements, in the order they are drawn.
        width: Of the picture, in pixels.
        height: The same.
    """
    size = f"width='{width}' height='{height}' viewBox='0 0 {width} {height}'"
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' {size}>\n<rect width='100%' height='100%' fill='white'/>\n"
    )
    body = "\n".join(lines)
    path.write_text(f"{head}{body}\n</svg>\n", encoding="utf-8")


def text(
    x: float, y: float, words: str, *, size: int = 11, colour: str = INK, weight: str = "", anchor: str = ""
) -> str:
    """Words; what XML cannot hold becomes a space.

    Args:
        x: Where they stand.
        y: Their base line.
        words: The words.
        size: Of the letters, in pixels.
        colour: Of the letters.
        weight: Such as "bold".
        anchor: What of them stands at x: "" = the start, "middle", "end".
    """
    style = f" font-weight='{weight}'" if weight else ""
    style += f" text-anchor='{anchor}'" if anchor else ""
    printable = "".join(char if char.isprintable() else " " for char in words)
    place = f"x='{x:.1f}' y='{y:.1f}' {_FONT} font-size='{size}' fill='{colour}'{style}"
    return f"<text {place}>{escape(printable)}</text>"


def rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    """A filled rectangle by its upper left corner."""
    return f"<rect x='{x:.1f}' y='{y:.1f}' width='{width:.1f}' height='{height:.1f}' fill='{colour}'/>"


def line(first: float, last: float, y: float) -> str:
    """A thin level line from one x to another."""
    return (
        f"<line x1='{first:.1f}' y1='{y:.1f}' x2='{last:.1f}' y2='{y:.1f}' stroke='{INK}' stroke-width='1'/>"
    )
