"""The report as a picture: bars in an SVG file written by hand, so that it needs no library and no screen.

Bars of a group and a unit share a scale; the thin line over a bar goes from its least to its most sample.
Limits of the machine are grey, each runner has a colour of its own.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from phi4.bench.report import MACHINE, Report, Row, digits
from phi4.bench.svg import FAINT, GREY, line, rect, text, write_svg

TITLES = {
    "limits": "limits of the machine",
    "start": "from nothing to the first token",
    "memory": "memory",
    "prompt": "reading a prompt",
    "answer": "writing an answer",
    "encoders": "encoders",
}
_COLOURS = ("#2b6cb0", "#dd8a3a", "#2f855a", "#805ad5", "#c53030", "#0f766e")
_WIDTH, _LEFT, _RIGHT, _MARGIN = 860, 270, 170, 16
_BAR, _GAP, _TITLE, _LINE = 13, 7, 34, 14
_NOTE_CHARS = 130


def draw(report: Report, path: Path) -> None:
    """Write the picture.

    Args:
        report: What was measured.
        path: The file, by convention ending in .svg; an old one is replaced.
    """
    colours = dict(zip(report.runners, _COLOURS * len(report.runners), strict=False)) | {MACHINE: GREY}
    lines, y = _head(report, colours)
    for (group, unit), rows in groupby(drawn_rows(report), key=lambda row: (row.group, row.unit)):
        y += _TITLE
        members = list(rows)
        title = f"{TITLES[group]}, {unit}" + ("" if members[0].more_is_better else " (less is better)")
        lines.append(text(_MARGIN, y - 10, title, size=13, weight="bold"))
        most = max((max(values) for row in members for values in row.samples.values() if values), default=0.0)
        for row in members:
            lines += _row(row, y, most, colours)
            y += _height(row)
    notes = [part for note in report.notes for part in textwrap.wrap(note, _NOTE_CHARS)]
    lines += [text(_MARGIN, y + 20 + _LINE * n, note, colour=FAINT) for n, note in enumerate(notes)]
    write_svg(path, lines, _WIDTH, y + 24 + _LINE * len(notes))


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
        text(_MARGIN, 26, f"phi4 bench: {Path(report.model).name}", size=16, weight="bold"),
        text(_MARGIN, 44, machine, colour=FAINT),
    ]
    y = 54
    for label, facts in report.runners.items():
        lines.append(rect(_MARGIN, y, 10, 10, colours[label]))
        lines.append(text(_MARGIN + 16, y + 9, f"{label}: {facts}"))
        y += 16
    return lines, y


def _row(row: Row, y: int, most: float, colours: dict[str, str]) -> Iterable[str]:
    """A label and a bar for each runner."""
    yield text(_LEFT - 8, y + _height(row) // 2, row.name, anchor="end")
    scale = (_WIDTH - _LEFT - _RIGHT) / most if most > 0 else 0.0
    for number, (label, values) in enumerate(row.samples.items()):
        if not values:
            continue
        top = y + number * _BAR
        median = row.median(label) or 0.0
        yield rect(_LEFT, top, median * scale, _BAR - 3, colours.get(label, GREY))
        if len(values) > 1:
            yield line(_LEFT + min(values) * scale, _LEFT + max(values) * scale, top + (_BAR - 3) / 2)
        yield text(_LEFT + max(values) * scale + 6, top + _BAR - 4, f"{digits(median)} {row.unit}")


def _height(row: Row) -> int:
    return _BAR * max(1, len(row.samples)) + _GAP
