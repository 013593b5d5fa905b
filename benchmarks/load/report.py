"""The results as a table in Markdown, one JSON document and pictures."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.bars import span
from harness.records import CellResult, SeriesResult, Store
from harness.report import machine_line

from load.bars import BARS, judged
from load.pictures import draw_memory, draw_model
from phi4.bench.report import RESTLESS, digits

Column = tuple[str, Callable[[SeriesResult], str]]
"""Heading, and what stands under it."""


def write_report(store: Store, facts: dict[str, Any]) -> list[Path]:
    """Write `table.md`, `serving.json` and pictures from the cells that are kept; returns their paths.

    Args:
        store: Where results are.
        facts: The machine.
    """
    store.folder.mkdir(parents=True, exist_ok=True)
    names = sorted(path.stem for path in (store.folder / "cells").glob("*.json"))
    results = [result for name in names if (result := store.read(name)) is not None]
    table, document = store.folder / "table.md", store.folder / "serving.json"
    table.write_text(markdown(results, facts), encoding="utf-8")
    here = {key: value for key, value in facts.items() if key not in ("phi4", "commit")}
    whole = {"machine": here, "cells": [asdict(result) for result in results]}
    document.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    paths = [table, document]
    for model in dict.fromkeys(result.cell.partition(".")[2] for result in results):
        own = [result for result in results if model and result.cell.endswith(f".{model}")]
        if any(kind(result) in ("users", "llamacpp") for result in own):
            paths.append(store.folder / f"{model}.svg")
            draw_model(model, own, facts, paths[-1])
    for result in results:
        if kind(result) == "soak" and result.series[0].replies:
            paths.append(store.folder / "memory.svg")
            draw_memory(result.title, result.series[0].replies[0], paths[-1])
    return paths


def kind(result: CellResult) -> str:
    """The kind of its cell."""
    return result.cell.partition(".")[0]


def markdown(results: Sequence[CellResult], facts: dict[str, Any]) -> str:
    """Bars first, then every cell, then how the machine was, then who was measured with what."""
    lines = ["# `phi4 serve` under load", "", machine_line(facts), ""]
    lines += ["The client runs on the same machine and stands in every figure with what it costs.", ""]
    lines += ["| what | cell | bar | measured | |", "|---|---|---|---:|---|"]
    for bar in BARS:
        for result in results:
            if kind(result) == bar.kind:
                lines.append(_row(bar.what, result.cell, bar.text, *judged(bar, result)))
    lines += ["", "Ratios are of the same turn: median, and in brackets the least and the most.", ""]
    for result in results:
        lines += [f"## {result.cell}: {result.title}", "", *_cell(result), ""]
    return "\n".join([*lines, *_calibration(results), "", *_facts(results), ""])


def _cell(result: CellResult) -> list[str]:
    if result.skipped:
        return [f"Skipped: {result.skipped}"]
    columns = COLUMNS.get(kind(result), ANSWERS)
    lines = [_row("", *(heading for heading, _ in columns)), "|---|" + "---:|" * len(columns)]
    for series in result.series:
        if series.samples:
            lines.append(_row(series.label, *(show(series) for _, show in columns)))
        else:
            lines.append(_row(series.label, f"failed: {series.error or 'stopped'}"))
    return lines


def _of(key: str) -> Callable[[SeriesResult], str]:
    """Median and range over the turns of something the samples tell."""

    def show(series: SeriesResult) -> str:
        found = [reply[key] for reply in series.replies if reply.get(key) is not None]
        return span(found) if found else "-"

    return show


def _pair(name: str) -> Callable[[SeriesResult], str]:
    """Medians over the turns of a p50 and a p99, in milliseconds."""

    def show(series: SeriesResult) -> str:
        middles = [_median(series, f"{name}_p{percent}_ms") for percent in (50, 99)]
        return " / ".join("-" if middle is None else digits(middle) for middle in middles)

    return show


def _median(series: SeriesResult, key: str) -> float | None:
    found = [reply[key] for reply in series.replies if reply.get(key) is not None]
    return statistics.median(found) if found else None


def _shares(series: SeriesResult) -> str:
    """Processor time of everybody, as shares of one CPU, in the turn that was in the middle."""
    order = sorted(range(len(series.samples)), key=series.samples.__getitem__)
    reply = series.replies[order[len(order) // 2]]
    seconds = reply.get("seconds")
    if not seconds:
        return "-"
    shares = {role: 100 * spent / seconds for role, spent in reply["cpu_s"].items()}
    return ", ".join(f"{role} {share:.0f}%" for role, share in shares.items() if share >= 1)


def _ends(series: SeriesResult) -> str:
    """What became of the requests of all turns."""
    found: dict[str, int] = {}
    for reply in series.replies:
        for name, count in reply["outcomes"].items():
            found[name] = found.get(name, 0) + count
    return ", ".join(f"{name} {count:,}" for name, count in found.items())


ANSWERS: tuple[Column, ...] = (
    ("tokens/s", _of("tokens_per_s")),
    ("answers/s", _of("requests_per_s")),
    ("first token p50 / p99, ms", _pair("first_token")),
    ("between pieces p50 / p99, ms", _pair("gap")),
    ("processor time, of one CPU", _shares),
)
COLUMNS: dict[str, tuple[Column, ...]] = {
    "client": (
        ("pieces/s", _of("pieces_per_s")),
        ("client, µs a piece", _of("client_us_per_piece")),
        ("processor time, of one CPU", _shares),
    ),
    "engine": (*ANSWERS, ("engine steps", _of("steps"))),
    "rows": (("tokens/s while all are written", _of("steady_tokens_per_s")), *ANSWERS[2:]),
    "overload": (
        ("offered/s", _of("offered_per_s")),
        ("in time/s", _of("goodput_per_s")),
        ("answer p50 / p99, ms", _pair("answer")),
        ("refusal p50 / p99, ms", _pair("refusal")),
        ("client late p99, ms", _of("client_late_p99_ms")),
        ("outcomes, all turns", _ends),
    ),
    "soak": (
        ("% more", _of("grown_percent")),
        ("MB early", _of("early_MB")),
        ("MB late", _of("late_MB")),
        ("MB at most", _of("most_MB")),
        ("outcomes", _ends),
    ),
}


def _calibration(results: Sequence[CellResult]) -> list[str]:
    lines = ["| cell | phi4 | began | load | memory read, GB/s | float32 product, GOP/s | |"]
    lines += ["|---|---|---|---:|---:|---:|---|"]
    for result in results:
        rates, products = result.read_GB_per_s, result.matmul_GOP_per_s
        if rates:
            restless = max(rates) - min(rates) > RESTLESS * max(rates)
            told = "restless: take the figures as rough" if restless else ""
            load = f"{result.load_average:g}"
            lines.append(
                _row(result.cell, result.phi4, result.began, load, span(rates), span(products), told)
            )
    return lines


def _facts(results: Sequence[CellResult]) -> list[str]:
    lines = ["| cell | who | command |", "|---|---|---|"]
    for result in results:
        known = {series.program: series.facts for series in result.series if "command" in series.facts}
        lines += [_row(result.cell, who, f"`{facts['command']}`") for who, facts in known.items()]
    return lines


def _row(*columns: str) -> str:
    return "| " + " | ".join(column.replace("|", "/").replace("\n", " ") for column in columns) + " |"
