"""What is measured: a cell has a file of results of its own, and its series take turns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.records import CellResult, SeriesResult

from load.models import NANO, Served
from phi4.version import __version__

OURS, BARE, CLIENT, LLAMA = "phi4 serve", "phi4 engine", "client", "llama.cpp"
OVERHEAD_USERS = 8
ECHO_USERS = 8


@dataclass(frozen=True)
class Cell:
    """Things that are compared with each other.

    Attributes:
        kind: Which function of `bench.KINDS` measures it.
        served: The model; None = no model is needed.
        title: What it is, in words.
        unit: Of the samples.
        value: Key of what a sample told that is the sample.
        series: Label of each series -> the program.
        turns: Samples of each series.
        settings: What figures depend on beside the machine.
        more_is_better: Whether it is a rate.
    """

    kind: str
    served: Served | None
    title: str
    unit: str
    value: str
    series: Mapping[str, str]
    turns: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    more_is_better: bool = True

    @property
    def name(self) -> str:
        """File name of its results."""
        return f"{self.kind}.{self.served.name}" if self.served else self.kind

    @property
    def model(self) -> Served:
        """The model of a cell that has one."""
        assert self.served is not None, "this cell needs a model"
        return self.served

    def as_settings(self) -> dict[str, Any]:
        """What its figures depend on, as a record keeps it."""
        described = {"series": self.series, "turns": self.turns, "value": self.value, **self.settings}
        plain: dict[str, Any] = json.loads(json.dumps(described))
        return plain

    def empty_series(self) -> list[SeriesResult]:
        """A line for each series, nothing measured yet."""
        return [SeriesResult(label, program) for label, program in self.series.items()]


def all_cells(models: Sequence[Served], soak_minutes: float) -> list[Cell]:
    """Every cell in the order of measuring.

    Args:
        models: What is served, nano first.
        soak_minutes: Length of the soak; 0 = none.
    """
    cells = [_client()]
    for served in models:
        cells += [_users(served), _rows(served), _engine(served), _overload(served)]
        if served.name == NANO:
            cells.append(_llamacpp(served))
            cells += [_soak(served, soak_minutes)] if soak_minutes else []
    return cells


def done(cell: Cell, kept: CellResult | None) -> bool:
    """Whether a kept result needs no more measuring: it is whole, and of this version of phi4.

    Another commit is no reason to measure again, as with `benchmarks/device.py`; reports name the commit.
    """
    return (
        kept is not None
        and kept.settings == cell.as_settings()
        and kept.machine.get("phi4") == __version__
        and not kept.skipped
        and all(len(series.samples) == cell.turns for series in kept.series)
    )


def _client() -> Cell:
    labels = {f"{ECHO_USERS} users": CLIENT}
    title = "the client, at a server that computes nothing"
    return Cell("client", None, title, "pieces/s", "pieces_per_s", labels, 5)


def _label(users: int) -> str:
    return "1 user" if users == 1 else f"{users} users"


def _users(served: Served) -> Cell:
    sizes = served.sizes
    series = {_label(users): OURS for users in sizes.rounds}
    title = f"{served.name}: prompts of {sizes.prompt}, answers of {sizes.answer}"
    settings = sizes.as_settings()
    return Cell("users", served, title, "tokens/s", "tokens_per_s", series, sizes.turns, settings)


def _rows(served: Served) -> Cell:
    sizes = served.sizes
    series = {"1 row": OURS, f"{sizes.rows} rows": OURS}
    title = f"{served.name}: while all answers of {sizes.steady_answer} are being written"
    settings = sizes.as_settings()
    return Cell("rows", served, title, "tokens/s", "steady_tokens_per_s", series, sizes.turns, settings)


def _engine(served: Served) -> Cell:
    sizes = served.sizes
    series = {"over HTTP": OURS, "in process": BARE}
    title = f"{served.name}: the same requests of {OVERHEAD_USERS} users"
    settings = sizes.as_settings()
    turns = 2 * sizes.turns  # a few percent are looked for, and no machine is that still
    return Cell("engine", served, title, "tokens/s", "tokens_per_s", series, turns, settings)


def _overload(served: Served) -> Cell:
    sizes = served.sizes
    series = {"1x": OURS, f"{sizes.overload}x": OURS}
    title = f"{served.name}: answers within {sizes.deadline_s:g} s, when asked at a steady rate"
    settings, unit = sizes.as_settings(), "answers/s"
    return Cell("overload", served, title, unit, "goodput_per_s", series, sizes.overload_turns, settings)


def _llamacpp(served: Served) -> Cell:
    sizes = served.sizes
    series = {f"{program}, {_label(users)}": program for users in sizes.rounds for program in (OURS, LLAMA)}
    title = f"{served.name}: chat, questions of about {sizes.prompt}, answers of {sizes.answer}"
    settings = sizes.as_settings()
    return Cell("llamacpp", served, title, "tokens/s", "tokens_per_s", series, sizes.turns, settings)


def _soak(served: Served, minutes: float) -> Cell:
    title = f"{served.name}: {minutes:g} minutes of everything, users leave at random"
    settings = {"minutes": minutes}
    series = {"memory": OURS}
    return Cell("soak", served, title, "% more", "grown_percent", series, 1, settings, more_is_better=False)
