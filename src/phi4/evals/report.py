"""A report of an evaluation: one JSON document, a table for the terminal, Markdown for a page.

`Report.to_json` holds everything that was measured, the first answers word for word included, so a
number can be checked by reading. rich is imported only when a table is asked for.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi4.evals.intervals import Estimate
from phi4.evals.run import Row
from phi4.version import __version__

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Report:
    """Rows with what they were measured on.

    Attributes:
        model: Name or directory the model was loaded from.
        rows: One a task.
        runner: Backend, device, dtype and attention, in words.
    """

    model: str
    rows: tuple[Row, ...]
    runner: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values: the whole report."""
        rows = [
            asdict(row) | {"needs_its_media": row.needs_its_media if row.controls else None}
            for row in self.rows
        ]
        return {"phi4": __version__, "model": self.model, "runner": self.runner, "rows": rows}

    def write(self, path: Path) -> None:
        """Write the JSON document; an old one is replaced whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(part, path)


INDENT = "  "
"""Before the name of an extra, below its task."""
HEADINGS = ("task", "n", "score (95%)", "error rate", "aim", "control", "score", "task minus control (95%)")
PAGE_HEADINGS = (
    "task",
    "n",
    "score (95%)",
    "aim",
    "blind",
    "minus blind, points (95%)",
    "wrong medium",
    "adapter off",
)


def cells(report: Report) -> list[tuple[str, ...]]:
    """The table as text: a line a task, one for each further control, one for each extra (name indented)."""
    lines: list[tuple[str, ...]] = []
    for row in report.rows:
        aim = "" if row.aim is None else percent(row.aim)
        head = (row.task, str(row.n), _score(row.score), _rate(row.metric, row.error_rate), aim)
        controls = [
            (c.name, percent(c.score.value), f"{_points(c.gain.value)} ({_range(c.gain)})")
            for c in row.controls
        ]
        controls = controls or [("", "", "")]
        lines.append((*head, *controls[0]))
        lines += [("",) * len(head) + control for control in controls[1:]]
        for extra in row.extras:
            rate = _rate(row.metric, extra.error_rate)
            name = f"{INDENT}{extra.name}"
            lines.append((name, str(extra.n), _score(extra.score), rate, "", "", "", ""))
    return lines


def table(report: Report) -> Table:
    """The report as a table for the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    drawn = Table(
        box=SIMPLE_HEAD, title=f"{report.model}  ({report.runner})", title_justify="left", pad_edge=False
    )
    for heading in HEADINGS:
        name = heading in ("task", "control")
        drawn.add_column(heading, justify="left" if name else "right", no_wrap=heading == "task")
    for line in cells(report):
        drawn.add_row(*line, style="bold" if line[0] and not line[0].startswith(INDENT) else "")
    return drawn


def markdown(report: Report) -> str:
    """The report for a page: what it is of, a Markdown table with a line a task and an extra, the verdict."""
    rule = ["---", *["---:"] * (len(PAGE_HEADINGS) - 1)]
    lines = [PAGE_HEADINGS, rule, *(line for row in report.rows for line in _page_lines(row))]
    drawn = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([f"{report.model}: {report.runner}.", "", *drawn, "", verdict(report)]) + "\n"


def _page_lines(row: Row) -> list[tuple[str, ...]]:
    """Score, aim and controls in one line, controls of several media side by side; then a line an extra."""
    scores: dict[str, list[str]] = {"blind": [], "wrong": [], "adapter": []}
    several = sum(c.removes_medium for c in row.controls) > 1
    for control in row.controls:
        words = control.name.split()  # "blind", "blind (image)", "wrong audio", "adapter off"
        kind = words[0]
        medium = f" {words[-1].strip('()')}" if several and kind in ("blind", "wrong") else ""
        scores[kind].append(percent(control.score.value) + medium)
    hardest = row.blind
    gain = f"{_points(hardest.gain.value)} ({_range(hardest.gain)})" if hardest else ""
    head = (
        f"{row.task}: {row.title}",
        str(row.n),
        _score(row.score),
        "" if row.aim is None else percent(row.aim),
        " / ".join(scores["blind"]),
        gain,
        " / ".join(scores["wrong"]),
        " / ".join(scores["adapter"]),
    )
    extras = [
        (f"- {extra.name}: {extra.title}", str(extra.n), _score(extra.score), *[""] * (len(head) - 3))
        for extra in row.extras
    ]
    return [head, *extras]


def verdict(report: Report) -> str:
    """One line: do the media rows need their media?"""
    media = [row for row in report.rows if row.controls]
    if not media:
        return "No task with media was run with controls."
    failing = [row.task for row in media if not row.needs_its_media]
    if failing:
        return f"Not 30 points above blind with an interval excluding zero: {', '.join(failing)}."
    return f"All {len(media)} media tasks are at least 30 points above blind; every interval excludes zero."


def percent(share: float) -> str:
    """0.1234 -> 12.3%."""
    return f"{100 * share:.1f}%"


def _rate(metric: str, error_rate: float) -> str:
    """An error rate with its name; right-or-wrong tasks need none."""
    return "" if metric == "exact" else f"{metric} {percent(error_rate)}"


def _score(estimate: Estimate) -> str:
    return f"{percent(estimate.value)} ({_range(estimate)})"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _range(estimate: Estimate) -> str:
    return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"
