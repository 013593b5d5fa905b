"""A picture of a report: every task's score with its interval, and its controls beside it.

Needs matplotlib (extra `train`), imported late. Drawn without pyplot, so no window system and no
state of the process is touched.
"""

from __future__ import annotations

from pathlib import Path

from phi4.errors import MissingExtra
from phi4.evals.intervals import Estimate
from phi4.evals.report import Report

_INK, _TASK, _CONTROL = "#222222", "#2b6cb0", "#c05621"
_ROW_HEIGHT_INCHES = 0.27


def draw(report: Report, path: Path) -> None:
    """Write the picture; the format follows the ending of `path` (.png, .svg).

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("a picture needs matplotlib: in the checkout, pip install '.[train]'") from None
    lines = _lines(report)
    figure = Figure(figsize=(8.0, 1.2 + _ROW_HEIGHT_INCHES * len(lines)), layout="constrained")
    axes = figure.add_subplot()
    for place, (_, estimate, is_task) in enumerate(lines):
        colour = _TASK if is_task else _CONTROL
        spread = [[estimate.value - estimate.low], [estimate.high - estimate.value]]
        axes.barh(place, estimate.value, height=0.75 if is_task else 0.45, color=colour, alpha=0.85)
        axes.errorbar(estimate.value, place, xerr=spread, color=_INK, capsize=2, linewidth=1)
        axes.text(1.01, place, f"{100 * estimate.value:.1f}", va="center", fontsize=8, color=colour)
    axes.set_yticks(range(len(lines)), [label for label, _, _ in lines], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.08)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0], ["0%", "25%", "50%", "75%", "100%"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{report.model}: score and 95% interval; orange = control", fontsize=10, loc="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _lines(report: Report) -> list[tuple[str, Estimate, bool]]:
    """Label, score, and whether it is the task itself, from top to bottom."""
    lines = []
    for row in report.rows:
        lines.append((f"{row.task} (n={row.n})", row.score, True))
        lines += [(control.name, control.score, False) for control in row.controls]
    return lines
