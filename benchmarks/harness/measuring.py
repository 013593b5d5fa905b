"""Samples of a cell, series by series in turns, with the machine's own speed measured around each."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from harness.artefacts import MEDIA
from harness.cells import Cell, Series
from harness.crew import Crew
from harness.environments import Environments, NotHere
from harness.machine import machine
from harness.programs import PROGRAMS, Program
from harness.records import CellResult, SeriesResult, empty_series, settings_of
from harness.scale import Scale
from harness.workbench import Workbench
from harness.workers import Worker, WorkerError
from phi4.bench.limits import Reader, numpy_matmul_rate

READINGS = 3
WARM_TOKENS = 64
"""Ids of the prompt programs warm up with: enough for ours to open its form for prompts."""
_WARM_TURN = -1
_READ_BYTES = 1 << 24


class Bench:
    """Everything a measurement needs.

    Args:
        scale: Sizes.
        environments: Where programs are installed.
        workbench: Where their files are.
        timeout_s: The longest one answer may take.
        command: What the driver was called with, for the records.
    """

    def __init__(
        self,
        scale: Scale,
        environments: Environments,
        workbench: Workbench,
        timeout_s: float,
        command: str,
    ) -> None:
        self.scale, self.environments, self.workbench = scale, environments, workbench
        self._timeout_s, self._command = timeout_s, command
        self.crew = Crew(self._loaded, scale.name)
        self._warm_ups = 0

    def measure(self, cell: Cell, missing: MutableMapping[str, str]) -> CellResult:
        """Measure a cell; what fails is noted in its series, and the others go on.

        Args:
            cell: The cell.
            missing: Programs that cannot be measured, with the reason; those whose files turn out to be
                impossible to make are added.
        """
        self._prepare(cell, missing)
        result = self.blank(cell)
        if cell.peer in missing:
            result.skipped = f"{PROGRAMS[cell.peer].label}: {missing[cell.peer]}"
            return result
        for series in result.series:
            series.error = missing.get(series.program, "")
            series.skipped = bool(series.error)
        if any(series.how in ("start", "memory") for series in cell.series):
            self.crew.clear()
        self._take_turns(cell, result)
        return result

    def _prepare(self, cell: Cell, missing: MutableMapping[str, str]) -> None:
        """Have all files a cell needs before anything is timed; making some takes all the memory there is."""
        if cell.peer in missing:
            return
        for name in cell.programs:
            files = [PROGRAMS[name].artefact, *([MEDIA] if _sees_media(cell, name) else [])]
            if name in missing or all(self.workbench.has(file) for file in files):
                continue
            self.crew.clear()
            try:
                for file in files:
                    self.workbench.path(file)
            except NotHere as error:
                missing[name] = str(error)

    def blank(self, cell: Cell) -> CellResult:
        """A result with nothing measured."""
        return CellResult(
            cell=cell.name,
            title=cell.title,
            group=cell.group,
            unit=cell.unit,
            more_is_better=cell.more_is_better,
            settings=settings_of(cell, self.scale.name),
            machine=machine(self.environments.threads),
            command=self._command,
            began=time.strftime("%FT%TZ", time.gmtime()),
            series=empty_series(cell),
            load_average=round(os.getloadavg()[0], 2),
        )

    def _take_turns(self, cell: Cell, result: CellResult) -> None:
        """Every series once a turn; each turn begins with another one, so that nobody is always the first."""
        with Reader() as reader:
            for turn in range(cell.turns):
                for place in range(len(cell.series)):
                    index = (turn + place) % len(cell.series)
                    if not result.series[index].error:
                        self._calibrate(reader, result)
                        self._sample(cell.series[index], turn, cell.unit, result.series[index])
            self._calibrate(reader, result)

    def _calibrate(self, reader: Reader, result: CellResult) -> None:
        """Note what the machine gives now; every program is stopped meanwhile."""
        rates = [reader.rate(self.environments.threads) for _ in range(READINGS)]
        result.read_GB_per_s.append(round(statistics.median(rates) / 1e9, 3))
        products = [numpy_matmul_rate() for _ in range(READINGS)]
        result.matmul_GOP_per_s.append(round(statistics.median(products) / 1e9, 1))

    def _sample(self, series: Series, turn: int, unit: str, result: SeriesResult) -> None:
        """Take one sample, or note why there is none."""
        takes: dict[str, Callable[[Series, int, SeriesResult], dict[str, Any]]] = {
            "ask": self._asked,
            "start": self._started,
            "memory": self._held,
            "made_s": self._made,
            "made_memory": self._made,
        }
        try:
            reply = takes[series.how](series, turn, result)
        except (NotHere, WorkerError) as error:
            result.error = str(error)
            result.skipped = isinstance(error, NotHere) or error.skipped
            self.crew.drop(PROGRAMS[series.program])
            print(f"  {series.label}: {result.error}", file=sys.stderr)
            return
        value = value_of(reply, series.how, unit)
        result.samples.append(value)
        result.replies.append(reply)
        print(f"  turn {turn + 1}, {series.label}: {value:.4g} {unit}", file=sys.stderr)

    def _asked(self, series: Series, turn: int, result: SeriesResult) -> dict[str, Any]:
        """Of a program that stays in memory if it can."""
        worker = self.crew.ready(PROGRAMS[series.program])
        args = self._arguments(series, turn)
        try:
            if series.warm and series.label not in worker.warmed:
                worker.ask(series.operation, self._timeout_s, **args)
                worker.warmed.add(series.label)
            reply = worker.ask(series.operation, self._timeout_s, **args)
        finally:
            worker.pause()
        result.facts = worker.facts
        return reply

    def _started(self, series: Series, turn: int, result: SeriesResult) -> dict[str, Any]:
        """From the start of a process to its first token, imports included, files in the page cache."""
        read_all(self.workbench.path(PROGRAMS[series.program].artefact))
        worker = self._launched(PROGRAMS[series.program])
        try:
            imported = time.perf_counter()
            self._load(worker, PROGRAMS[series.program])
            loaded = time.perf_counter()
            worker.ask("prefill", self._timeout_s, ids=self.scale.token_ids(series.tokens, turn))
            done = time.perf_counter()
        finally:
            worker.close()
        result.facts = worker.facts
        return {
            "seconds": done - worker.started,
            "import_s": imported - worker.started,
            "load_s": loaded - imported,
            "first_token_s": done - loaded,
        }

    def _held(self, series: Series, turn: int, result: SeriesResult) -> dict[str, Any]:
        """The most memory a new process has resident while it reads a prompt and begins to answer."""
        worker = self._launched(PROGRAMS[series.program])
        try:
            self._load(worker, PROGRAMS[series.program])
            loaded = worker.memory()
            worker.ask("decode", self._timeout_s, **self._arguments(series, turn))
            reply = worker.memory()
        finally:
            worker.close()
        result.facts = worker.facts
        return reply | {"after_load": loaded}

    def _made(self, series: Series, turn: int, result: SeriesResult) -> dict[str, Any]:
        """What making the program's file of the checkpoint took."""
        name = PROGRAMS[series.program].artefact
        made = self.workbench.made(name)
        if made["resumed"]:
            raise NotHere(f"{name} was made in several pieces; delete it to have it timed in one")
        result.facts = {"command": made["command"]}
        return made

    def _arguments(self, series: Series, turn: int) -> dict[str, Any]:
        args: dict[str, Any] = dict(series.args)
        if series.tokens:
            args["ids"] = self.scale.token_ids(series.tokens, turn)
        if series.media:
            args["media"] = str(self.workbench.path(MEDIA))
        return args

    def _loaded(self, program: Program) -> Worker:
        """A new process with its model loaded and everything run once."""
        worker = self._launched(program)
        try:
            self._load(worker, program)
            if program.warms_up:
                self._warm_ups += 1
                ids = self.scale.token_ids(WARM_TOKENS, _WARM_TURN * self._warm_ups)
                worker.facts |= worker.ask("warm_up", self._timeout_s, ids=ids)
        except BaseException:
            worker.close()
            raise
        return worker

    def _launched(self, program: Program) -> Worker:
        """A new process that has imported its libraries."""
        python = self.environments.python(program.environment)
        command = [str(python), "-P", "-m", "peers.serving", program.module]
        log = self.workbench.logs / f"{program.name}.log"
        return Worker(command, self.environments.variables(program.environment), log)

    def _load(self, worker: Worker, program: Program) -> None:
        args: dict[str, Any] = dict(program.options)
        if program.media:
            args["media"] = str(self.workbench.path(MEDIA))
        path = str(self.workbench.path(program.artefact))
        told = worker.ask("load", self._timeout_s, path=path, threads=self.environments.threads, **args)
        worker.facts |= {"load_s": told.pop("seconds"), "path": path} | told


def _sees_media(cell: Cell, program: str) -> bool:
    """Whether a program is sent the prompt with the picture."""
    asked = any(series.media for series in cell.series if series.program == program)
    return asked or PROGRAMS[program].media


def read_all(path: Path) -> None:
    """Read a file or all files of a folder, so that the system keeps what it can of them in memory."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as opened:
                while opened.read(_READ_BYTES):
                    pass


def value_of(reply: Mapping[str, Any], how: str, unit: str) -> float:
    """The sample in what a program told.

    Args:
        reply: Its answer.
        how: See `Series`.
        unit: Of the cell.
    """
    if unit == "GB":
        return float(reply["peak_bytes"]) / 1e9
    seconds = float(reply["seconds"])
    return float(reply["tokens"]) / seconds if unit == "tokens/s" else seconds
