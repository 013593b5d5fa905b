"""What was measured: rows of samples, as plain values for JSON and as tables for the terminal."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from phi4.version import __version__

if TYPE_CHECKING:
    from rich.table import Table

Group = Literal["limits", "start", "prompt", "answer", "encoders", "memory"]
MACHINE = "machine"
"""Column of what is measured without a model."""
RESTLESS = 0.1
"""Two readings of the bandwidth further apart than this share mean that something else ran."""


@dataclass(frozen=True)
class Row:
    """One thing, measured for the machine or for each runner.

    Attributes:
        group: What it belongs with; rows of a group and a unit are drawn to one scale.
        name: What it is, in words.
        unit: Of the samples.
        more_is_better: A rate and not a time.
        samples: Runner (or `MACHINE`) -> every sample; a runner that could not do it is left out.
    """

    group: Group
    name: str
    unit: str
    more_is_better: bool
    samples: Mapping[str, tuple[float, ...]]

    def median(self, runner: str) -> float | None:
        """Median of a runner's samples; None when there are none."""
        found = self.samples.get(runner)
        return statistics.median(found) if found else None

    def ratio(self, first: str, second: str) -> float | None:
        """How many times better the first runner is than the second, by their medians.

        None where one has no samples, and of shares: each is of its own amount of work.
        """
        one, two = self.median(first), self.median(second)
        if not one or not two or self.unit == "%":
            return None
        return one / two if self.more_is_better else two / one


@dataclass(frozen=True)
class Report:
    """A whole run.

    Attributes:
        model: What the user called it.
        machine: Facts of the machine, in order.
        runners: Label -> facts of the runner.
        rows: What was measured.
        notes: What was left out and why, and what to beware of.
    """

    model: str
    machine: Mapping[str, str]
    runners: Mapping[str, str]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values: every sample, and their medians."""
        return {
            "phi4": __version__,
            "model": self.model,
            "machine": dict(self.machine),
            "runners": dict(self.runners),
            "rows": [_row_as_dict(row, list(self.runners)) for row in self.rows],
            "notes": list(self.notes),
        }

    def write(self, path: Path) -> None:
        """Write the JSON document; an old one is replaced whole or not at all."""
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(part, path)


def _row_as_dict(row: Row, runners: Sequence[str]) -> dict[str, Any]:
    found = {
        "group": row.group,
        "name": row.name,
        "unit": row.unit,
        "more_is_better": row.more_is_better,
        "median": {runner: row.median(runner) for runner in row.samples},
        "samples": {runner: list(values) for runner, values in row.samples.items()},
    }
    if len(runners) == 2 and MACHINE not in row.samples:
        found["ratio"] = row.ratio(runners[0], runners[1])
    return found


def table(report: Report) -> Table:
    """A line a row: median and range of each runner; with two, how many times better the first is."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    runners = list(report.runners)
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in headings(runners):
        drawn.add_column(heading, justify="left" if heading in ("", "unit") else "right", no_wrap=True)
    group = ""
    for row in report.rows:
        if group not in ("", row.group):
            drawn.add_section()
        group = row.group
        drawn.add_row(*cells(row, runners))
    return drawn


def headings(runners: Sequence[str]) -> list[str]:
    """Of the columns of `cells`."""
    return ["", "unit", *runners, *([f"{runners[0]} / {runners[1]}"] if len(runners) == 2 else [])]


def cells(row: Row, runners: Sequence[str]) -> list[str]:
    """A row as text; what holds for the machine stands in the first runner's column."""
    if MACHINE in row.samples:
        found = [_range(row, MACHINE), *[""] * (len(runners) - 1)]
    else:
        found = [_range(row, runner) for runner in runners]
    if len(runners) == 2:
        ratio = None if MACHINE in row.samples else row.ratio(runners[0], runners[1])
        found.append("" if ratio is None else f"{ratio:.2f}x")
    return [row.name, row.unit, *found]


def _range(row: Row, runner: str) -> str:
    """Median, then the least and the most; one sample has no range."""
    values, median = row.samples.get(runner), row.median(runner)
    if not values or median is None:
        return "-"
    if len(values) == 1:
        return digits(median)
    return f"{digits(median)} ({digits(min(values))} to {digits(max(values))})"


def digits(value: float) -> str:
    """Three digits, without exponents: 1,234 12.3 1.23 0.0123."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if size >= 10 else 2 if size >= 1 else 3}f}"
