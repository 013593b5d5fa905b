"""Cells of the server's benchmark take turns, are kept, go on where they were, and are told in a table."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from harness.environments import Environments, NotHere
from harness.machine import machine
from harness.records import CellResult, Store
from harness.workers import WorkerError
from load.bars import BARS, judged
from load.bench import Bench, Takes
from load.cells import OURS, Cell, all_cells, done
from load.metrics import GAUGES, RESTARTS, USAGE
from load.models import LARGE, NANO, SMALL, Served
from load.report import write_report
from serving import KINDS, chosen_cells, run

from phi4.version import __version__

REPOSITORY = Path(__file__).parents[3]
NANO_SERVED = Served(NANO, NANO)
CELLS = {cell.name: cell for cell in all_cells([NANO_SERVED, Served("mini", "mini", LARGE)], 15.0)}
CELL = Cell("users", NANO_SERVED, "title", "tokens/s", "tokens_per_s", {"one": OURS, "two": OURS}, 3)
MACHINE = {**machine(2), "phi4": __version__, "commit": "abc"}


class Measured:
    """A kind of cell whose samples are made up."""

    def __init__(self, failing: str = "", missing: str = "") -> None:
        self.order: list[str] = []
        self.failing, self.missing = failing, missing

    @contextmanager
    def __call__(self, bench: Bench, cell: Cell, result: CellResult) -> Iterator[Takes]:
        if self.missing:
            raise NotHere(self.missing)

        def take(label: str, turn: int) -> dict[str, Any]:
            self.order.append(f"{turn} {label}")
            if label == self.failing and turn == 1:
                raise WorkerError("fell over")
            return {"tokens_per_s": 10.0 * (turn + 1)}

        yield {label: lambda turn, label=label: take(label, turn) for label in cell.series}


def bench(folder: Path, kind: Measured) -> Bench:
    return Bench(Environments(folder / "peers", 1), folder, "test", {"users": kind})


def test_series_take_turns_and_each_turn_begins_with_another(tmp_path: Path) -> None:
    kind = Measured()
    found = bench(tmp_path, kind).measure(CELL)
    assert kind.order == ["0 one", "0 two", "1 two", "1 one", "2 one", "2 two"]
    assert found["one"].samples == [10.0, 20.0, 30.0] and len(found.read_GB_per_s) == 7
    assert found.machine["commit"] and done(CELL, found)


def test_series_that_fails_keeps_its_samples_and_the_cell_is_tried_again(tmp_path: Path) -> None:
    found = bench(tmp_path, Measured(failing="two")).measure(CELL)
    assert found["two"].samples == [10.0] and found["two"].error == "fell over"
    assert found["one"].samples == [10.0, 20.0, 30.0] and not done(CELL, found)


def test_cell_that_cannot_be_measured_here_says_why(tmp_path: Path) -> None:
    found = bench(tmp_path, Measured(missing="not installed")).measure(CELL)
    assert found.skipped == "not installed" and not done(CELL, found)


def test_stopped_run_goes_on_with_the_cells_that_are_left(tmp_path: Path) -> None:
    store, kind = Store(tmp_path), Measured()
    other = replace(CELL, served=Served("other", "other"))
    run(bench(tmp_path, kind), store, [CELL])
    left = [cell for cell in (CELL, other) if not done(cell, store.read(cell.name))]
    assert left == [other]
    run(bench(tmp_path, kind), store, left)
    assert all(done(cell, store.read(cell.name)) for cell in (CELL, other)) and len(kind.order) == 12


@pytest.mark.parametrize(
    "changed", [replace(CELL, turns=4), replace(CELL, settings={"answer": 1}), replace(CELL, value="other")]
)
def test_cell_that_means_something_else_now_is_measured_anew(tmp_path: Path, changed: Cell) -> None:
    assert not done(changed, bench(tmp_path, Measured()).measure(CELL))


def test_cells_have_names_and_kinds_of_their_own() -> None:
    cells = list(CELLS.values())
    assert len(cells) == 11 and {cell.kind for cell in cells} == set(KINDS)
    assert "llamacpp.mini" not in CELLS and "soak.mini" not in CELLS and "engine.mini" in CELLS
    assert not any(cell.kind == "soak" for cell in all_cells([NANO_SERVED], 0.0))
    for cell in cells:
        assert cell.as_settings() == json.loads(json.dumps(cell.as_settings()))


def test_cells_are_chosen_by_the_beginning_of_their_names() -> None:
    cells = list(CELLS.values())
    names = [cell.name for cell in chosen_cells(cells, "users, rows.m")]
    assert names == ["users.nano", "users.mini", "rows.mini"]
    assert chosen_cells(cells, None) == cells
    for only in ("throughput", ","):
        with pytest.raises(ValueError, match=r"there is client, users\.nano"):
            chosen_cells(cells, only)


def test_prompts_are_the_same_for_everybody_and_no_two_are_alike() -> None:
    ids = NANO_SERVED.token_ids("one")
    assert len(ids) == SMALL.prompt and ids == Served(NANO, NANO).token_ids("one")
    assert ids != NANO_SERVED.token_ids("two")
    assert not set(ids) & NANO_SERVED.tokenizer.control_ids
    text = NANO_SERVED.text("one")
    assert len(NANO_SERVED.tokenizer.encode_text(text)) >= SMALL.prompt and text != NANO_SERVED.text("two")


def reply(value: float) -> dict[str, Any]:
    """What a sample of any kind of cell may tell."""
    names = ("first_token", "gap", "answer", "refusal")
    spreads = {f"{name}_p{percent}_ms": value + percent for name in names for percent in (50, 99)}
    rates = ("tokens_per_s", "requests_per_s", "pieces_per_s", "steady_tokens_per_s", "goodput_per_s")
    held = {**dict.fromkeys(GAUGES, 0.0), USAGE: 0.002, RESTARTS: 0.0}
    return {
        **spreads,
        **dict.fromkeys(rates, value),
        "seconds": 2.0,
        "cpu_s": {"engine": 1.5, "client": 0.1},
        "outcomes": {"whole": 3, "text: left": 1, "text: as expected": 2} if value != 1.0 else {"whole": 1},
        "lost": 0,
        "offered_per_s": 7.0,
        "client_late_p99_ms": 1.0,
        "client_us_per_piece": 8.0,
        "grown_percent": value - 1.0,
        **{"early_MB": 100.0, "late_MB": 101.0, "most_MB": 110.0},
        "at_s": [0, 5],
        "resident_MB": {"server": [50.0, 51.0], "engine": [50.0, 50.0]},
        "when_full": held,
        "at_the_end": held,
        "canary_answers": {"42": 3},
    }


def made_up(cell: Cell, *values: float) -> CellResult:
    """A result whose series have these samples, one value each."""
    result = bench(Path(), Measured(missing="x")).measure(replace(cell, kind="users"))
    result = replace(result, cell=cell.name, skipped="", machine=MACHINE, settings=cell.as_settings())
    for series, value in zip(result.series, values, strict=False):
        series.samples, series.replies = [value] * cell.turns, [reply(value)] * cell.turns
        series.facts = {"command": f"serve {cell.name}"}
    return result


@pytest.mark.parametrize(
    ("cell", "values", "verdicts"),
    [
        ("rows.nano", (10.0, 31.0), ["met"]),
        ("rows.nano", (10.0, 29.0), ["missed"]),
        ("engine.nano", (96.0, 100.0), ["met"]),
        ("engine.nano", (94.0, 100.0), ["missed"]),
        ("overload.nano", (20.0, 19.5), ["met", "missed", "met"]),
        ("overload.nano", (20.0, 1.0), ["missed", "met", "met"]),
        ("soak.nano", (1.0,), ["met", "met", "missed"]),
        ("soak.nano", (4.0,), ["missed", "met", "missed"]),
    ],
)
def test_bars_are_judged_by_the_figures(cell: str, values: tuple[float, ...], verdicts: list[str]) -> None:
    result = made_up(CELLS[cell], *values)
    bars = [bar for bar in BARS if bar.kind == CELLS[cell].kind]
    assert [judged(bar, result)[1] for bar in bars] == verdicts


def test_soak_that_leaves_something_behind_misses_its_bar() -> None:
    left = next(bar for bar in BARS if bar.what.startswith("left"))
    for changed in ({GAUGES[0]: 1.0}, {USAGE: 0.01}):
        result = made_up(CELLS["soak.nano"], 1.0)
        found = result.series[0].replies[0]
        found["at_the_end"] = {**found["at_the_end"], **changed}
        assert judged(left, result)[1] == "missed"


def test_answers_that_were_expected_are_no_reason_to_miss() -> None:
    odd = next(bar for bar in BARS if bar.what.startswith("unexpected"))
    result = made_up(CELLS["soak.nano"], 1.0)
    found = {**result.series[0].replies[0], "outcomes": {"text: left": 1, "text: as expected": 2}}
    result.series[0].replies = [found]
    assert judged(odd, result)[1] == "met"
    for changed in ({"canary_answers": {"42": 3, "43": 1}}, {"at_the_end": {RESTARTS: 1.0}}):
        result.series[0].replies = [found | changed]
        assert judged(odd, result)[1] == "missed"


def test_nothing_is_judged_of_a_cell_that_failed_or_was_left_out() -> None:
    bar = next(bar for bar in BARS if bar.kind == "rows")
    result = made_up(CELLS["rows.nano"], 10.0)
    result.series[1].error = "fell over"
    assert judged(bar, result) == ("-", "failed: fell over")
    assert judged(bar, replace(result, skipped="no room")) == ("-", "skipped: no room")


def test_report_shows_every_cell_bar_and_picture(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for cell in CELLS.values():
        store.write(made_up(cell, *range(2, 2 + len(cell.series))))
    paths = write_report(store, MACHINE)
    names = [path.name for path in paths]
    assert names == ["table.md", "serving.json", "mini.svg", "nano.svg", "memory.svg"]
    table = paths[0].read_text()
    for cell in CELLS.values():
        assert cell.title in table and f"`serve {cell.name}`" in table
    for bar in BARS:
        assert bar.what in table
    words = {path.name: "".join(ElementTree.parse(path).getroot().itertext()) for path in paths[2:]}
    assert "llama.cpp" in words["nano.svg"] and "llama.cpp" not in words["mini.svg"]
    assert "engine" in words["memory.svg"] and len(json.loads(paths[1].read_text())["cells"]) == len(CELLS)


def test_driver_lists_its_cells_without_torch_and_measures_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, serving\n"
        f"sys.argv = ['serving.py', '--list', '--soak-minutes', '1', '--out', {str(tmp_path / 'out')!r}]\n"
        "status = serving.main()\n"
        "sys.exit(status or 'torch' in sys.modules)\n"
    )
    paths = [str(REPOSITORY / "benchmarks"), str(REPOSITORY / "src")]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}\n{code}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "to do  overload.nano" in done.stdout and not list(tmp_path.iterdir())
