"""Programs take turns, stay in memory while they fit, and the driver itself never sees torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from device import artefacts_of, chosen_cells
from harness.cells import Cell, Series, all_cells
from harness.crew import Crew
from harness.environments import Environments, NotHere
from harness.machine import commit, machine, same_machine
from harness.measuring import Bench, value_of
from harness.programs import PROGRAMS, Program
from harness.records import SeriesResult
from harness.scale import FULL, QUICK
from harness.workbench import Workbench
from harness.workers import Worker, WorkerError
from peers.patch_llamacpp import BARRIER, patched

pytestmark = pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="memory is read from /proc")
BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


class Running:
    """What a crew asks of a worker."""

    def __init__(self, name: str) -> None:
        self.name, self.alive, self.resumed = name, True, 0

    def resume(self) -> None:
        self.resumed += 1

    def close(self) -> None:
        self.alive = False


def crew(room_gb: float, started: list[str]) -> Crew:
    def start(program: Program) -> Worker:
        started.append(program.name)
        return cast(Worker, Running(program.name))

    return Crew(start, "full", 1e9 * room_gb)


def test_programs_that_fit_together_are_started_once() -> None:
    started: list[str] = []
    held = crew(20.0, started)
    for _ in range(3):
        for name in ("fast", "lean", "llamacpp"):
            held.ready(PROGRAMS[name])
    assert started == ["fast", "lean", "llamacpp"] == list(held.names)


def test_program_used_longest_ago_makes_room() -> None:
    started: list[str] = []
    held = crew(16.0, started)
    first = held.ready(PROGRAMS["fast"])
    held.ready(PROGRAMS["lean"])
    held.ready(PROGRAMS["transformers"])
    assert held.names == ("lean", "transformers") and not first.alive
    held.clear()
    assert held.names == ()


def test_program_that_fits_nowhere_is_refused_and_one_that_died_is_started_again() -> None:
    started: list[str] = []
    held = crew(8.0, started)
    with pytest.raises(NotHere, match="GB of memory"):
        held.ready(PROGRAMS["transformers"])
    held.ready(PROGRAMS["fast"]).close()
    assert held.ready(PROGRAMS["fast"]).alive and started == ["fast", "fast"]


class Scripted(Bench):
    """A bench whose samples are made up: the turn, or a failure."""

    def __init__(self, folder: Path, failing: str = "") -> None:
        environments = Environments(folder / "peers", 1)
        super().__init__(QUICK, environments, Workbench(folder, QUICK, environments, 1e9), 1.0, "test")
        self.order: list[str] = []
        self.failing = failing

    def _asked(self, series: Series, turn: int, result: SeriesResult) -> dict[str, Any]:
        self.order.append(f"{turn}{series.label}")
        if series.label == self.failing and turn == 1:
            raise WorkerError("fell over")
        return {"seconds": 2.0, "tokens": 10 * (turn + 1)}

    def _prepare(self, cell: Cell, missing: Any) -> None:
        return None


CELL = Cell(
    "x", "x", "prompt", "tokens/s", 3, tuple(Series(n, n, "ask") for n in ("fast", "lean", "openvino"))
)


def test_series_take_turns_and_each_turn_begins_with_another(tmp_path: Path) -> None:
    bench = Scripted(tmp_path)
    found = bench.measure(CELL, {})
    turns = [[name[1:] for name in bench.order if name[0] == turn] for turn in "012"]
    assert turns == [["fast", "lean", "openvino"], ["lean", "openvino", "fast"], ["openvino", "fast", "lean"]]
    assert found["lean"].samples == [5.0, 10.0, 15.0]
    assert len(found.read_GB_per_s) == len(found.matmul_GOP_per_s) == 10 and min(found.read_GB_per_s) > 0


def test_series_that_fails_keeps_its_samples_and_the_others_go_on(tmp_path: Path) -> None:
    found = Scripted(tmp_path, failing="lean").measure(CELL, {"openvino": "not installed"})
    assert found["lean"].samples == [5.0] and found["lean"].error == "fell over"
    assert found["fast"].samples == [5.0, 10.0, 15.0]
    assert found["openvino"].samples == [] and found["openvino"].skipped


def test_cell_without_its_peer_is_skipped_whole(tmp_path: Path) -> None:
    bench = Scripted(tmp_path)
    cell = next(cell for cell in all_cells(QUICK) if cell.peer == "openvino")
    found = bench.measure(cell, {"openvino": "not installed"})
    assert found.skipped == "OpenVINO GenAI int4: not installed" and not bench.order


@pytest.mark.parametrize(
    ("reply", "unit", "value"),
    [
        ({"seconds": 2.0, "tokens": 10}, "tokens/s", 5.0),
        ({"seconds": 2.0}, "s", 2.0),
        ({"peak_bytes": 3_000_000_000, "seconds": 9.0}, "GB", 3.0),
    ],
)
def test_sample_is_in_the_unit_of_its_cell(reply: dict[str, float], unit: str, value: float) -> None:
    assert value_of(reply, "ask", unit) == value


def test_cells_are_chosen_by_the_beginning_of_their_names() -> None:
    names = [cell.name for cell in chosen_cells(FULL, "prefill.l, copying", None)]
    assert names == ["prefill.llamacpp", "copying"]
    assert all(cell.turns == 7 for cell in chosen_cells(FULL, None, 7))
    for only in ("prefil.x", ","):
        with pytest.raises(ValueError, match=r"there is prefill\.llamacpp"):
            chosen_cells(FULL, only, None)


def test_files_of_remaining_cells_are_wanted_and_no_others() -> None:
    cells = {cell.name: cell for cell in all_cells(FULL)}
    assert artefacts_of([cells["speech"]]) == {"multimodal", "multimodal-fast", "media.npz"}
    assert artefacts_of([cells["copying"]]) == {"mini", "mini-fast", "mini-lean"}


def test_prompts_are_the_same_for_everybody_and_others_in_every_turn() -> None:
    assert QUICK.token_ids(50, 0) == QUICK.token_ids(50, 0) != QUICK.token_ids(50, 1)
    assert max(FULL.token_ids(5000, 0)) < 199_999


def test_barrier_stands_once_before_every_load() -> None:
    source = "int f() {\n    if (x) {\n        _tile_loadconfig(&tc);\n    }\n}\n"
    once = patched(source)
    assert once == source.replace("        _tile", f"        {BARRIER}\n        _tile")
    assert patched(once) == once


def test_machine_is_told_by_processor_and_threads() -> None:
    found = machine(3)
    assert found["threads"] == 3 and found["memory_GB"] > 0 and commit()
    assert same_machine(found, {**found, "commit": "x"}) and not same_machine(found, {**found, "threads": 4})


def test_driver_lists_its_cells_without_torch_and_makes_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, device\n"
        f"sys.argv = ['device.py', '--quick', '--list', '--scratch', {str(tmp_path)!r}]\n"
        "status = device.main()\n"
        "sys.exit(status or 'torch' in sys.modules)\n"
    )
    paths = os.pathsep.join([str(BENCHMARKS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "prefill.llamacpp" in done.stdout and not list(tmp_path.rglob("*.safetensors"))
