"""Samples of a cell, series by series in turns, with the machine's own speed measured around each."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from harness.environments import OURS as OUR_ENVIRONMENT
from harness.environments import Environments, NotHere
from harness.machine import machine
from harness.measuring import READINGS
from harness.records import CellResult
from harness.workers import WorkerError

from load.cells import OURS, Cell
from load.models import Served
from load.servers import Server
from phi4.bench.limits import Reader, numpy_matmul_rate

Reply = dict[str, Any]
Takes = Mapping[str, Callable[[int], Reply]]
"""Label of a series -> takes a sample; is told the turn."""
Kind = Callable[["Bench", Cell, CellResult], AbstractContextManager[Takes]]
PLAIN = ("--no-speculation",)
"""Guessed tokens would measure how well random text can be guessed; `benchmarks/lookup.py` measures that."""


class Bench:
    """Everything a measurement needs.

    Args:
        environments: Where programs are installed, and the threads everybody computes with.
        scratch: Folder for logs and files that have to be made.
        command: What the driver was called with, for the records.
        kinds: Kind of a cell -> starts what it needs and tells how samples are taken.
    """

    def __init__(
        self, environments: Environments, scratch: Path, command: str, kinds: Mapping[str, Kind]
    ) -> None:
        self.environments, self.scratch = environments, scratch
        self._command, self._kinds = command, kinds

    def measure(self, cell: Cell) -> CellResult:
        """Measure a cell; a series that fails is noted, and the others go on."""
        result = CellResult(
            cell=cell.name,
            title=cell.title,
            group="answer",
            unit=cell.unit,
            more_is_better=cell.more_is_better,
            settings=cell.as_settings(),
            machine=machine(self.environments.threads),
            command=self._command,
            began=time.strftime("%FT%TZ", time.gmtime()),
            series=cell.empty_series(),
            load_average=round(os.getloadavg()[0], 2),
        )
        try:
            with self._kinds[cell.kind](self, cell, result) as takes:
                self._take_turns(cell, result, takes)
        except (NotHere, WorkerError) as error:
            result.skipped = str(error)
        return result

    def ours(self, served: Served, *options: str) -> Server:
        """`phi4 serve` on a model, ready.

        Raises:
            NotHere: It did not start.
        """
        python = self.environments.python(OUR_ENVIRONMENT)
        command = [str(python), "-P", "-m", "phi4", "serve", "--port", "{port}", "--model", served.path]
        variables = self.environments.variables(OUR_ENVIRONMENT)
        log = self.scratch / "logs" / f"serve-{served.name}.log"
        return Server(OURS, [*command, *options], variables, log, "/health/ready")

    def _take_turns(self, cell: Cell, result: CellResult, takes: Takes) -> None:
        """Every series once a turn; each turn begins with another one, so that nobody is always the first."""
        with Reader() as reader:
            for turn in range(cell.turns):
                for place in range(len(result.series)):
                    series = result.series[(turn + place) % len(result.series)]
                    if series.error:
                        continue
                    self._calibrate(reader, result)
                    try:
                        reply = takes[series.label](turn)
                    except WorkerError as error:
                        series.error = str(error)
                        _show(f"  {series.label}: {error}")
                        continue
                    series.replies.append(reply)
                    series.samples.append(float(reply[cell.value]))
                    _show(f"  turn {turn + 1}, {series.label}: {series.samples[-1]:.4g} {cell.unit}")
            self._calibrate(reader, result)

    def _calibrate(self, reader: Reader, result: CellResult) -> None:
        """Note what the machine gives now; every server is idle meanwhile."""
        rates_now = [reader.rate(self.environments.threads) for _ in range(READINGS)]
        result.read_GB_per_s.append(round(statistics.median(rates_now) / 1e9, 3))
        products = [numpy_matmul_rate() for _ in range(READINGS)]
        result.matmul_GOP_per_s.append(round(statistics.median(products) / 1e9, 1))


def _show(line: str) -> None:
    print(line, file=sys.stderr)
