"""The report as a picture: bars in an SVG file written by hand, so that it needs no library and no screen.

Bars of a group and a unit share a scale; the thin line over a bar goes from its least to its most sample.
Limits of the machine are grey, each runner has a colour of its own.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from xml.sax.saxutils import escape

from phi4.bench.report import MACHINE, Report, Row, digits

TITLES = {
    "limits": "limits of the machine",
    "start": "from nothing to the first token",
    "memory": "memory",
    "prompt": "reading a prompt",
    "answer": "writing an answer",
    "encoders": "encoders",
}
_COLOURS = ("#2b6cb0", "#dd8a3a", "#2f855a", "#805ad5")
_GREY, _INK, _FAINT = "#8a8f98", "#222222", "#666666"
_WIDTH, _LEFT, _RIGHT, _MARGIN = 860, 270, 170, 16
_BAR, _GAP, _TITLE, _LINE = 13, 7, 34, 14
_NOTE_CHARS = 130
_FONT = "font-family='sans-serif'"


def draw(report: Report, path: Path) -> None:
    """Write the picture.

    Args:
        report: What was measured.
        path: The file, by convention ending in .svg; an old one is replaced.
    """
    colours = dict(zip(report.runners, _COLOURS * len(report.runners), strict=False)) | {MACHINE: _GREY}
    lines, y = _head(report, colours)
    for (group, unit), rows in groupby(drawn_rows(report), key=lambda row: (row.group, row.unit)):
        y += _TITLE
        members = list(rows)
        title = f"{TITLES[group]}, {unit}" + ("" if members[0].more_is_better else " (less is better)")
        lines.append(_text(_MARGIN, y - 10, title, size=13, weight="bold"))
        most = max((max(values) for row in members for values in row.samples.values() if values), default=0.0)
        for row in members:
            lines += _row(row, y, most, colours)
            y += _height(row)
    notes = [line for note in report.notes for line in textwrap.wrap(note, _NOTE_CHARS)]
    lines += [_text(_MARGIN, y + 20 + _LINE * n, note, colour=_FAINT) for n, note in enumerate(notes)]
    height = y + 24 + _LINE * len(notes)
    size = f"width='{_WIDTH}' height='{height}' viewBox='0 0 {_WIDTH} {height}'"
    body = "\n".join(lines)
    svg = (
        f"<svg xmlns='http://www.w3.org/2000/svg' {size}>\n<rect width='100%' height='100%' fill='white'/>\n"
    )
    path.write_text(f"{svg}{body}\n</svg>\n", encoding="utf-8")


def drawn_rows(report: Report) -> list[Row]:
    """Rows in the picture's order: those of a group and a unit together, as first met."""
    order = list(dict.fromkeys((row.group, row.unit) for row in report.rows))
    return sorted(
        (row for row in report.rows if any(row.samples.values())),
        key=lambda row: order.index((row.group, row.unit)),
    )


def _head(report: Report, colours: dict[str, str]) -> tuple[list[str], int]:
    """Title, machine and the legend of runners; returns their lines and where they end."""
    machine = ", ".join(report.machine[name] for name in ("processor", "threads", "system"))
    lines = [
        _text(_MARGIN, 26, f"phi4 bench: {Path(report.model).name}", size=16, weight="bold"),
        _text(_MARGIN, 44, machine, colour=_FAINT),
    ]
    y = 54
    for label, facts in report.runners.items():
        lines.append(_rect(_MARGIN, y, 10, 10, colours[label]))
        lines.append(_text(_MARGIN + 16, y + 9, f"{label}: {facts}"))
        y += 16
    return lines, y


def _row(row: Row, y: int, most: float, colours: dict[str, str]) -> Iterable[str]:
    """A label and a bar for each runner."""
    yield _text(_LEFT - 8, y + _height(row) // 2, row.name, anchor="end")
    scale = (_WIDTH - _LEFT - _RIGHT) / most if most > 0 else 0.0
    for number, (label, values) in enumerate(row.samples.items()):
        if not values:
            continue
        top = y + number * _BAR
        median = row.median(label) or 0.0
        yield _rect(_LEFT, top, median * scale, _BAR - 3, colours.get(label, _GREY))
        if len(values) > 1:
            yield _line(_LEFT + min(values) * scale, _LEFT + max(values) * scale, top + (_BAR - 3) / 2)
        yield _text(_LEFT + max(values) * scale + 6, top + _BAR - 4, f"{digits(median)} {row.unit}")


def _height(row: Row) -> int:
    return _BAR * max(1, len(row.samples)) + _GAP


def _text(
    x: float, y: float, text: str, *, size: int = 11, colour: str = _INK, weight: str = "", anchor: str = ""
) -> str:
    style = f" font-weight='{weight}'" if weight else ""
    style += f" text-anchor='{anchor}'" if anchor else ""
    printable = "".join(char if char.isprintable() else " " for char in text)  # XML allows few others
    place = f"x='{x:.1f}' y='{y:.1f}' {_FONT} font-size='{size}' fill='{colour}'{style}"
    return f"<text {place}>{escape(printable)}</text>"


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f"<rect x='{x:.1f}' y='{y:.1f}' width='{width:.1f}' height='{height:.1f}' fill='{colour}'/>"


def _line(first: float, last: float, y: float) -> str:
    return (
        f"<line x1='{first:.1f}' y1='{y:.1f}' x2='{last:.1f}' y2='{y:.1f}' stroke='{_INK}' stroke-width='1'/>"
    )
