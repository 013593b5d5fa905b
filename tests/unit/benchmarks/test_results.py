"""Results are kept, judged and shown; what was not measured is never hidden."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness.bars import Bar, bandwidth_share, bars, judged
from harness.cells import Cell, all_cells
from harness.programs import PEERS, PROGRAMS
from harness.records import CellResult, SeriesResult, Store, empty_series, settings_of
from harness.report import markdown, write_report
from harness.scale import FULL, QUICK

from phi4.version import __version__

MACHINE: dict[str, Any] = {
    "processor": "Fast Chip",
    "flags": ["avx2"],
    "cpus": 2,
    "threads": 2,
    "memory_GB": 24.0,
    "system": "Linux",
    "phi4": __version__,
    "commit": "abc",
}
CELLS = {cell.name: cell for cell in all_cells(QUICK)}


def result(cell: Cell, **samples: list[float]) -> CellResult:
    """A result with samples by program; the others failed."""
    found = CellResult(
        cell=cell.name,
        title=cell.title,
        group=cell.group,
        unit=cell.unit,
        more_is_better=cell.more_is_better,
        settings=settings_of(cell, "quick"),
        machine=MACHINE,
        command="device.py",
        began="2026-01-01T00:00:00Z",
        series=empty_series(cell),
        read_GB_per_s=[10.0, 12.0, 11.0],
        matmul_GOP_per_s=[100.0, 100.0, 100.0],
    )
    for series in found.series:
        series.samples = samples.get(series.program, [])
        series.replies = [{"seconds": 1.0, "tokens": 8} for _ in series.samples]
        series.error = "" if series.samples else "broken pipe"
    return found


def test_result_is_read_back_as_it_was_written_without_places_of_this_machine(tmp_path: Path) -> None:
    store = Store(tmp_path, {Path("/some/place"): "HOME", Path("/some/place/scratch"): "SCRATCH"})
    kept = result(CELLS["prefill.llamacpp"], fast=[1.0, 2.0], lean=[3.0, 4.0])
    kept["fast"].facts = {"path": "/some/place/scratch/mini", "command": "/some/place/python"}
    store.write(kept)
    found = store.read("prefill.llamacpp")
    assert found is not None
    assert found["fast"].facts == {"path": "SCRATCH/mini", "command": "HOME/python"}
    kept["fast"].facts = found["fast"].facts
    assert found == kept and store.read("nothing") is None


def test_broken_file_counts_as_not_measured(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(result(CELLS["copying"]))
    store.path("copying").write_text('{"series": []}')
    assert store.read("copying") is None and not store.done(CELLS["copying"], "quick", {})


def test_cell_is_done_when_only_what_is_not_installed_is_missing(tmp_path: Path) -> None:
    store, cell = Store(tmp_path), CELLS["prefill.llamacpp"]
    assert not store.done(cell, "quick", {})
    store.write(result(cell, fast=[1.0], lean=[1.0]))
    assert not store.done(cell, "quick", {})
    assert store.done(cell, "quick", {"llamacpp": "not installed"})
    store.write(result(cell, fast=[1.0], lean=[1.0], llamacpp=[1.0]))
    assert store.done(cell, "quick", {})
    assert not store.done(cell, "full", {}) and not store.done(replace(cell, turns=9), "quick", {})


def test_cell_of_another_version_is_measured_anew_and_one_of_another_commit_is_kept(tmp_path: Path) -> None:
    store, cell = Store(tmp_path), CELLS["prefill.llamacpp"]
    kept = result(cell, fast=[1.0], lean=[1.0], llamacpp=[1.0])
    store.write(replace(kept, machine={**MACHINE, "commit": "earlier"}))
    assert store.done(cell, "quick", {})
    store.write(replace(kept, machine={**MACHINE, "phi4": "0.0.9"}))
    assert not store.done(cell, "quick", {})


def test_skipped_cell_is_measured_once_its_peer_is_there(tmp_path: Path) -> None:
    store, cell = Store(tmp_path), CELLS["prefill.openvino"]
    skipped = result(cell)
    skipped.skipped = "not installed"
    store.write(skipped)
    assert store.done(cell, "quick", {"openvino": "not installed"}) and not store.done(cell, "quick", {})


def test_results_of_another_machine_are_noticed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.foreign(MACHINE) is None
    store.write(result(CELLS["copying"]))
    assert store.foreign({**MACHINE, "commit": "other"}) is None
    assert store.foreign({**MACHINE, "processor": "Slow Chip"}) == MACHINE


def test_ratio_is_of_the_same_turn() -> None:
    found = result(CELLS["prefill.llamacpp"], fast=[30.0, 10.0, 40.0], llamacpp=[10.0, 5.0])
    assert found.ratios("fast", "llamacpp") == [3.0, 2.0]
    bar = Bar("prefill", "fast", "prefill.llamacpp", "fast", "llamacpp", 2.5, beside="llama.cpp")
    assert judged(bar, lambda name: found) == ("2.50 (2.00 to 3.00)", "met")
    assert judged(replace(bar, limit=2.6), lambda name: found)[1] == "missed"
    assert judged(replace(bar, limit=2.6, at_most=True), lambda name: found)[1] == "met"
    assert bar.text == ">= 2.5x llama.cpp"


def test_bar_without_figures_says_why() -> None:
    bar = Bar("prefill", "fast", "prefill.llamacpp", "fast", "llamacpp", 1.0)
    cell = CELLS["prefill.llamacpp"]
    assert judged(bar, lambda name: None) == ("-", "not measured yet")
    assert judged(bar, lambda name: result(cell, fast=[1.0])) == ("-", "failed: broken pipe")
    skipped = result(cell)
    skipped.skipped = "no disk"
    assert judged(bar, lambda name: skipped) == ("-", "skipped: no disk")
    assert "again" in judged(replace(bar, numerator="slow"), lambda name: result(cell))[1]


@pytest.mark.parametrize("scale", [FULL, QUICK], ids=["full", "quick"])
def test_every_bar_names_series_that_are_measured(scale: Any) -> None:
    cells = {cell.name: {series.label for series in cell.series} for cell in all_cells(scale)}
    for bar in bars(scale.rows, scale.steps):
        assert {bar.numerator, bar.denominator} - {""} <= cells[bar.cell]
        assert bar.profile in ("fast", "lean")


def test_share_of_the_bandwidth_is_of_bytes_a_step_reads() -> None:
    found = result(CELLS["decode.llamacpp"], fast=[4.0], llamacpp=[5.0])
    found["fast"].replies = [{"step_bytes": 1.1e9}]
    found["llamacpp"].facts = {"weight_bytes": 2.2e9}
    assert bandwidth_share(found, "fast") == pytest.approx(0.4)
    assert bandwidth_share(found, "llamacpp") == pytest.approx(1.0)
    assert bandwidth_share(found, "lean") is None
    prompts = result(CELLS["prefill.llamacpp"], fast=[4.0])
    prompts["fast"].replies = [{"step_bytes": 1.1e9}]
    assert bandwidth_share(prompts, "fast") is None
    batched = result(CELLS["batched"], fast=[8.0])
    batched["fast, 4 rows"].replies = [{"step_bytes": 1.1e9}]
    assert bandwidth_share(batched, "fast, 4 rows") == pytest.approx(0.2)


def test_table_shows_every_cell_and_every_reason() -> None:
    results: dict[str, CellResult | None] = dict.fromkeys(CELLS)
    results["prefill.llamacpp"] = result(CELLS["prefill.llamacpp"], fast=[3.0], lean=[1.0])
    skipped = result(CELLS["prefill.openvino"])
    skipped.skipped = "optimum | said no"
    results["prefill.openvino"] = skipped
    text = markdown(list(CELLS.values()), results, QUICK, MACHINE)
    for cell in CELLS.values():
        assert cell.title in text
    assert "failed: broken pipe" in text and "skipped: optimum / said no" in text
    assert "not measured yet" in text and "phi4 fast" in text and "restless" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| answer")}
    assert widths == {9}


def test_machine_without_amx_is_said_to_be_no_match_for_the_bars() -> None:
    results: dict[str, CellResult | None] = {}
    assert "bars were set on a processor with AMX" in markdown([], results, QUICK, MACHINE)
    assert "bars were set" not in markdown([], results, QUICK, {**MACHINE, "flags": ["amx_int8"]})


def test_report_is_three_files_and_the_picture_is_well_formed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(result(CELLS["decode.llamacpp"], fast=[3.0, 4.0], lean=[1.0, 1.0], llamacpp=[2.0, 2.0]))
    paths = write_report(store, list(CELLS.values()), QUICK, MACHINE)
    assert [path.name for path in paths] == ["table.md", "device.json", "device.svg"]
    drawn = "".join(ElementTree.parse(paths[2]).getroot().itertext())
    assert "phi4 fast" in drawn and "llama.cpp Q4_0" in drawn


def test_report_says_of_each_cell_which_commit_was_measured(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name, commit in (("prefill.llamacpp", "first"), ("decode.llamacpp", "second")):
        kept = result(CELLS[name], fast=[1.0], lean=[1.0])
        store.write(replace(kept, machine={**MACHINE, "commit": commit}))
    table, document, _ = write_report(store, list(CELLS.values()), QUICK, {**MACHINE, "commit": "today"})
    text = table.read_text()
    assert f"phi4 {__version__} (first), {__version__} (second): which cell" in text
    assert f"| decode.llamacpp | {__version__} (second) | 2026" in text
    assert "today" not in text and "today" not in document.read_text()


def test_cells_have_names_of_their_own_and_known_programs() -> None:
    cells = all_cells(FULL)
    assert len({cell.name for cell in cells}) == len(cells)
    for cell in cells:
        labels = [series.label for series in cell.series]
        assert len(set(labels)) == len(labels) and set(cell.programs) <= set(PROGRAMS)
        assert cell.turns >= 1 and cell.peer in ("", *PEERS)


def test_series_knows_the_profile_of_its_program() -> None:
    assert [series.profile for series in empty_series(CELLS["prefill.llamacpp"])] == ["fast", "lean", ""]
    assert SeriesResult("a", "fast").median is None
