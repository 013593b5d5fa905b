"""A picture of a report: every task's score with its interval, its aim, and its controls below it.

Needs matplotlib (extra `train`), imported late. Drawn without pyplot, so no window system and no
state of the process is touched.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from phi4.errors import MissingExtra
from phi4.evals.intervals import Estimate
from phi4.evals.report import Report
from phi4.evals.run import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _TASK, _CONTROL, _AIM = "#222222", "#2b6cb0", "#dd9a62", "#2f855a"
_LINE_INCHES = 0.24
_GAP = 0.7  # between tasks, in lines


def draw(report: Report, path: Path) -> None:
    """Write the picture; the format follows the ending of `path` (.png, .svg).

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("a picture needs matplotlib: in the checkout, pip install '.[train]'") from None
    height = sum(1 + len(row.controls) + _GAP for row in report.rows)
    figure = Figure(figsize=(8.0, 1.1 + _LINE_INCHES * height), layout="constrained")
    axes = figure.add_subplot()
    place, ticks = 0.0, []
    for row in report.rows:
        ticks += _task(axes, row, place)
        place += 1 + len(row.controls) + _GAP
    axes.set_yticks([at for at, _ in ticks], [label for _, label in ticks], fontsize=8)
    for tick, (_, label) in zip(axes.get_yticklabels(), ticks, strict=True):
        tick.set_fontweight("bold" if "(n=" in label else "normal")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(place - _GAP - 0.3, -0.8)
    axes.set_xlim(0, 1.1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0], ["0%", "25%", "50%", "75%", "100%"], fontsize=8)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    title = f"{report.model}: score with 95% interval (blue), its controls (orange), its aim (green line)"
    axes.set_title(title, fontsize=9, loc="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _task(axes: Axes, row: Row, place: float) -> list[tuple[float, str]]:
    """Draw a task and its controls from `place` downwards; returns places and labels."""
    ticks = [(place, f"{row.task} (n={row.n})")]
    _bar(axes, place, row.score, _TASK, 0.8)
    if row.aim is not None:
        axes.plot([row.aim, row.aim], [place - 0.5, place + 0.5], color=_AIM, linewidth=2)
    for number, control in enumerate(row.controls, 1):
        ticks.append((place + number, control.name))
        _bar(axes, place + number, control.score, _CONTROL, 0.55)
    return ticks


def _bar(axes: Axes, place: float, estimate: Estimate, colour: str, height: float) -> None:
    spread = [[estimate.value - estimate.low], [estimate.high - estimate.value]]
    axes.barh(place, estimate.value, height=height, color=colour)
    axes.errorbar(estimate.value, place, xerr=spread, color=_INK, capsize=2, linewidth=0.9)
    axes.text(1.02, place, f"{100 * estimate.value:.1f}", va="center", fontsize=8, color=_INK)
