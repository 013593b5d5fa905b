"""The results as a table in Markdown, one JSON document and a picture."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.bars import bandwidth_share, bars, judged, span
from harness.cells import Cell
from harness.machine import beware
from harness.programs import PROGRAMS
from harness.records import CellResult, SeriesResult, Store
from harness.scale import Scale
from phi4.bench import Report, Row, draw
from phi4.bench.report import RESTLESS, digits

TITLES = {
    "full": "full-size models, random weights",
    "quick": "a tiny model: only shows that the harness works",
}


def write_report(store: Store, cells: Sequence[Cell], scale: Scale, facts: dict[str, Any]) -> list[Path]:
    """Write `table.md`, `device.json` and `device.svg` from the cells that are kept; returns their paths.

    Args:
        store: Where results are.
        cells: All cells there are, measured or not.
        scale: Sizes.
        facts: The machine.
    """
    results = {cell.name: store.read(cell.name) for cell in cells}
    found = [result for result in results.values() if result is not None]
    paths = [store.folder / name for name in ("table.md", "device.json", "device.svg")]
    paths[0].write_text(markdown(cells, results, scale, facts), encoding="utf-8")
    # Which phi4 was measured is told cell by cell: those that are kept may be older than this one.
    here = {key: value for key, value in facts.items() if key not in ("phi4", "commit")}
    document = {"scale": scale.name, "machine": here, "cells": [asdict(result) for result in found]}
    paths[1].write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draw(picture(found, scale, facts), paths[2])
    return paths


def markdown(
    cells: Sequence[Cell], results: dict[str, CellResult | None], scale: Scale, facts: dict[str, Any]
) -> str:
    """Bars first, then every cell, then who was measured with what."""
    lines = [f"# On the device: {TITLES[scale.name]}", "", machine_line(facts), beware(facts), ""]
    lines += [*_commits(results), ""]
    lines += ["| what | profile | bar | measured | |", "|---|---|---|---:|---|"]
    for bar in bars(scale.rows, scale.steps):
        measured, verdict = judged(bar, results.get)
        lines.append(_row(bar.what, bar.profile, bar.text, measured, verdict))
    lines += ["", "Ratios are of the same turn: median, and in brackets the least and the most.", ""]
    lines += ["| cell | unit | who | median | least to most | n | bandwidth used | |"]
    lines += ["|---|---|---|---:|---:|---:|---:|---|"]
    for cell in cells:
        lines += _cell_rows(cell, results[cell.name])
    lines += ["", "Bandwidth used: bytes a step reads, times steps a second, by the rate of reading memory"]
    lines += ["measured around the samples of the same cell.", ""]
    return "\n".join([*lines, *_calibration_rows(results), "", *_facts_rows(results), ""])


def _commits(results: dict[str, CellResult | None]) -> list[str]:
    """What was measured, which is not what is checked out now."""
    found = list(dict.fromkeys(result.phi4 for result in results.values() if result is not None))
    if len(found) < 2:
        return [f"phi4 {name}" for name in found]
    return [f"phi4 {', '.join(found)}: which cell is of which stands in the last table but one."]


def _row(*columns: str) -> str:
    return "| " + " | ".join(column.replace("|", "/").replace("\n", " ") for column in columns) + " |"


def machine_line(facts: dict[str, Any]) -> str:
    """The machine in a sentence."""
    flags = ", ".join(facts["flags"]) or "no flags known"
    return (
        f"{facts['processor']} ({flags}), {facts['threads']} threads on {facts['cpus']} CPUs, "
        f"{facts['memory_GB']} GB, {facts['system']}"
    )


def _cell_rows(cell: Cell, result: CellResult | None) -> list[str]:
    if result is None:
        return [_row(cell.title, cell.unit, "-", "-", "-", "-", "-", "not measured yet")]
    if result.skipped:
        return [_row(cell.title, cell.unit, "-", "-", "-", "-", "-", f"skipped: {result.skipped}")]
    return [_series_row(cell, result, series) for series in result.series]


def _series_row(cell: Cell, result: CellResult, series: SeriesResult) -> str:
    who = who_is(series)
    if not series.samples:
        why = f"{'skipped' if series.skipped else 'failed'}: {series.error}" if series.error else "stopped"
        return _row(cell.title, cell.unit, who, "-", "-", "0", "-", why)
    values, share = series.samples, bandwidth_share(result, series.label)
    return _row(
        cell.title,
        cell.unit,
        who,
        digits(statistics.median(values)),
        f"{digits(min(values))} to {digits(max(values))}" if len(values) > 1 else "-",
        str(len(values)),
        "-" if share is None else f"{100 * share:.0f}%",
        series.error or _told(series),
    )


def who_is(series: SeriesResult) -> str:
    """A program by its label, with what sets the series apart from others of it."""
    return PROGRAMS[series.program].label + series.label.partition(",")[1] + series.label.partition(",")[2]


def _told(series: SeriesResult) -> str:
    """Parts of the last sample worth a glance."""
    reply = series.replies[-1]
    times = [key for key in ("import_s", "load_s", "encode_s", "prefill_s") if key in reply]
    counts = [key for key in ("prompt_tokens", "audio_tokens", "drafted", "accepted") if key in reply]
    parts = [*(f"{key} {reply[key]:.2f}" for key in times), *(f"{key} {reply[key]}" for key in counts)]
    if "anonymous_bytes" in reply:
        parts.append(f"private {reply['anonymous_bytes'] / 1e9:.2f} GB")
    return ", ".join(parts)


def _calibration_rows(results: dict[str, CellResult | None]) -> list[str]:
    lines = ["| cell | phi4 | began | load | memory read, GB/s | float32 product, GOP/s | |"]
    lines += ["|---|---|---|---:|---:|---:|---|"]
    for name, result in results.items():
        if result is not None and result.read_GB_per_s:
            rates, products = result.read_GB_per_s, result.matmul_GOP_per_s
            restless = max(rates) - min(rates) > RESTLESS * max(rates)
            told = "restless: take the figures as rough" if restless else ""
            load = f"{result.load_average:g}"
            lines.append(_row(name, result.phi4, result.began, load, span(rates), span(products), told))
    return lines


def _facts_rows(results: dict[str, CellResult | None]) -> list[str]:
    """Each program once, as it was measured last."""
    last = {
        series.program: series.facts
        for result in results.values()
        if result is not None
        for series in result.series
        if "versions" in series.facts
    }
    lines = ["| who | versions | settings | command |", "|---|---|---|---|"]
    for name, facts in last.items():
        versions = ", ".join(f"{package} {version}" for package, version in facts["versions"].items())
        who = f"{PROGRAMS[name].label} ({name})"
        lines.append(_row(who, versions, facts.get("facts", ""), facts["command"]))
    return lines


def picture(results: Sequence[CellResult], scale: Scale, facts: dict[str, Any]) -> Report:
    """What `phi4.bench.draw` draws: a row for each cell and thing done, a bar for each program."""
    rows: list[Row] = []
    notes = [note for note in (beware(facts), *(result.skipped for result in results)) if note]
    for result in results:
        if result.cell.startswith("export"):  # minutes would dwarf the seconds of its group
            continue
        kinds: dict[str, dict[str, tuple[float, ...]]] = {}
        for series in result.series:
            who, kind = PROGRAMS[series.program].label, series.label.partition(", ")[2]
            if series.samples:
                kinds.setdefault(kind, {})[who] = tuple(series.samples)
            if series.error and not result.skipped:
                notes.append(f"{who}: {series.error[:300]}")
        for kind, samples in kinds.items():
            name = f"{result.title}, {kind}" if kind else result.title
            rows.append(Row(result.group, name, result.unit, result.more_is_better, samples))
    labels = dict.fromkeys(label for row in rows for label in row.samples)
    machine = {
        "processor": facts["processor"],
        "threads": f"{facts['threads']} threads on {facts['cpus']} CPUs",
        "system": facts["system"],
    }
    runners = {label: _settings(results, label) for label in labels}
    return Report(TITLES[scale.name], machine, runners, tuple(rows), tuple(dict.fromkeys(notes)))


def _settings(results: Sequence[CellResult], label: str) -> str:
    """What the first measured program of a label told of itself, shortened."""
    for result in results:
        for series in result.series:
            if PROGRAMS[series.program].label == label and series.facts.get("facts"):
                return str(series.facts["facts"]).partition(";")[0][:110]
    return "not measured"
