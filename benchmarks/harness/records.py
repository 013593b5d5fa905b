"""Results on disk: a JSON file for each cell, so that a stopped run goes on with the next one."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.cells import Cell
from harness.machine import same_machine
from harness.programs import PROGRAMS
from phi4.bench.report import Group
from phi4.version import __version__


@dataclass
class SeriesResult:
    """What was measured of one series.

    Attributes:
        label: Its key in the cell.
        program: Who.
        profile: "fast" or "lean" for ours.
        samples: In the cell's unit, one a turn.
        replies: What the program told with each sample.
        facts: Command, versions, settings of the program.
        error: Why samples are missing.
        skipped: Whether that is a thing that cannot be measured here, and no failure.
    """

    label: str
    program: str
    profile: str = ""
    samples: list[float] = field(default_factory=list)
    replies: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    skipped: bool = False

    @property
    def median(self) -> float | None:
        """Of the samples; None when there are none."""
        return statistics.median(self.samples) if self.samples else None


@dataclass
class CellResult:
    """What was measured of one cell.

    Attributes:
        cell: Its name.
        title: See `Cell`.
        group: See `Cell`.
        unit: See `Cell`.
        more_is_better: See `Cell`.
        settings: What else figures depend on; another value means measuring anew.
        machine: See `machine`.
        command: What the driver was called with.
        began: When, UTC.
        series: The lines.
        read_GB_per_s: Bandwidth of reading memory before each sample and after the last.
        matmul_GOP_per_s: The rate of a float32 product in numpy, likewise.
        load_average: Of the last minute, at the beginning.
        skipped: Why nothing was measured.
    """

    cell: str
    title: str
    group: Group
    unit: str
    more_is_better: bool
    settings: dict[str, Any]
    machine: dict[str, Any]
    command: str
    began: str
    series: list[SeriesResult] = field(default_factory=list)
    read_GB_per_s: list[float] = field(default_factory=list)
    matmul_GOP_per_s: list[float] = field(default_factory=list)
    load_average: float = 0.0
    skipped: str = ""

    def get(self, label: str) -> SeriesResult | None:
        """The series of a label; None when there is none."""
        return next((series for series in self.series if series.label == label), None)

    def __getitem__(self, label: str) -> SeriesResult:
        found = self.get(label)
        if found is None:
            raise KeyError(label)
        return found

    @property
    def bandwidth(self) -> float | None:
        """Median of the readings, bytes a second."""
        return 1e9 * statistics.median(self.read_GB_per_s) if self.read_GB_per_s else None

    @property
    def phi4(self) -> str:
        """Version and commit of phi4 that was measured."""
        return f"{self.machine['phi4']} ({self.machine['commit']})"

    def ratios(self, first: str, second: str) -> list[float]:
        """Sample of one series by that of another of the same turn."""
        pairs = zip(self[first].samples, self[second].samples, strict=False)
        return [one / other for one, other in pairs]


def settings_of(cell: Cell, scale: str) -> dict[str, Any]:
    """What a cell's figures depend on beside the machine."""
    series = [asdict(series) for series in cell.series]
    described = {"scale": scale, "turns": cell.turns, "unit": cell.unit, "series": series}
    plain: dict[str, Any] = json.loads(json.dumps(described))  # as it will be read back
    return plain


class Store:
    """The results of one folder.

    Args:
        folder: Where `cells/` is, or will be.
        places: Folder of this machine -> what stands for it in a result, which others are to read.
    """

    def __init__(self, folder: Path, places: Mapping[Path, str] | None = None) -> None:
        self.folder = folder
        self._places = sorted((places or {}).items(), key=lambda place: -len(str(place[0])))

    def path(self, cell: str) -> Path:
        """The file of a cell."""
        return self.folder / "cells" / f"{cell}.json"

    def write(self, result: CellResult) -> None:
        """Keep a result; an old one is replaced whole or not at all."""
        path = self.path(result.cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        part, text = path.with_name(path.name + ".part"), json.dumps(asdict(result), indent=1)
        for folder, name in self._places:
            text = text.replace(str(folder), name)
        part.write_text(text + "\n", encoding="utf-8")
        os.replace(part, path)

    def read(self, cell: str) -> CellResult | None:
        """A kept result; None when there is none, or it was written by other code than this."""
        try:
            raw = json.loads(self.path(cell).read_text(encoding="utf-8"))
            raw["series"] = [SeriesResult(**series) for series in raw["series"]]
            return CellResult(**raw)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def done(self, cell: Cell, scale: str, missing: Mapping[str, str]) -> bool:
        """Whether a cell needs no more measuring: it is whole, and of this version of phi4.

        Another commit is no reason to measure again, or every change of a page would cost hours; reports say
        of each cell which commit it is of.

        Args:
            cell: The cell.
            scale: Name of the scale.
            missing: Programs that are not installed; samples missing for want of others are tried again.
        """
        kept = self.read(cell.name)
        if kept is None or kept.settings != settings_of(cell, scale):
            return False
        if kept.machine.get("phi4") != __version__:
            return False
        if kept.skipped:
            return cell.peer in missing
        return all(not series.error or series.program in missing for series in kept.series)

    def foreign(self, machine: dict[str, Any]) -> dict[str, Any] | None:
        """The machine of kept results, if it is another one."""
        for path in sorted((self.folder / "cells").glob("*.json")):
            kept = self.read(path.stem)
            if kept is not None and not same_machine(kept.machine, machine):
                return kept.machine
        return None


def empty_series(cell: Cell) -> list[SeriesResult]:
    """A line for each series of a cell, nothing measured yet."""
    return [SeriesResult(s.label, s.program, PROGRAMS[s.program].profile) for s in cell.series]
