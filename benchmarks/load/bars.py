"""What is hoped for of a server, and whether it was reached."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from harness.bars import span
from harness.records import CellResult

from load.metrics import GAUGES, RESTARTS, USAGE
from phi4.bench.report import digits

FLAT_PERCENT = 2.0
USAGE_SLACK = 1.05


@dataclass(frozen=True)
class Bar:
    """One line of the table.

    Attributes:
        what: What is measured.
        kind: Kind of the cells it is read from.
        text: The bar in words.
        judge: A result of such a cell -> what was measured, and whether the bar was met.
    """

    what: str
    kind: str
    text: str
    judge: Callable[[CellResult], tuple[str, bool]]


def _scaling(result: CellResult) -> tuple[str, bool]:
    one, many = (series.label for series in result.series)
    ratios = result.ratios(many, one)
    return f"{span(ratios)}x", statistics.median(ratios) >= 3.0


def _overhead(result: CellResult) -> tuple[str, bool]:
    lost = [100 * (1 - ratio) for ratio in result.ratios("over HTTP", "in process")]
    return f"{span(lost)}%", statistics.median(lost) <= 5.0


def _goodput(result: CellResult) -> tuple[str, bool]:
    one, many = (series.label for series in result.series)
    kept = [100 * ratio for ratio in result.ratios(many, one)]
    return f"{span(kept)}%", statistics.median(kept) >= 95.0


def _refusals(result: CellResult) -> tuple[str, bool]:
    waits = [reply["refusal_p99_ms"] for reply in result.series[-1].replies]
    found = [wait for wait in waits if wait is not None]
    return (
        (f"{span(found)} ms", statistics.median(found) <= 100.0) if found else ("nothing was refused", False)
    )


def _lost(result: CellResult) -> tuple[str, bool]:
    lost = sum(reply["lost"] for series in result.series for reply in series.replies)
    return str(lost), not lost


def _flat(result: CellResult) -> tuple[str, bool]:
    reply = result.series[0].replies[0]
    early, late, grown = reply["early_MB"], reply["late_MB"], reply["grown_percent"]
    return f"{digits(early)} to {digits(late)} MB, {grown:+.2f}%", grown <= FLAT_PERCENT


def _left(result: CellResult) -> tuple[str, bool]:
    full, end = (result.series[0].replies[0][name] for name in ("when_full", "at_the_end"))
    held = {name: end[name] for name in GAUGES if end[name]}
    usage = f"cache {1e6 * end[USAGE]:.0f} ppm, {1e6 * full[USAGE]:.0f} when it was full"
    told = ", ".join(f"{name} {value:g}" for name, value in held.items()) or "nothing"
    return f"{told}; {usage}", not held and end[USAGE] <= USAGE_SLACK * full[USAGE]


def _odd(result: CellResult) -> tuple[str, bool]:
    reply = result.series[0].replies[0]
    fine = (": left", ": as expected")
    odd = {name: count for name, count in reply["outcomes"].items() if not name.endswith(fine)}
    told = ", ".join(f"{name} {count}" for name, count in odd.items()) or "none"
    answers, restarts = len(reply["canary_answers"]), reply["at_the_end"][RESTARTS]
    measured = f"{told}; answers to the same question: {answers}, restarts: {restarts:g}"
    return measured, not odd and answers == 1 and not restarts


BARS = (
    Bar("8 rows against 1, while all are written", "rows", ">= 3x", _scaling),
    Bar("lost to the server, 8 users", "engine", "<= 5% of the engine alone", _overhead),
    Bar("answers in time at 10x", "overload", ">= 95% of those at 1x", _goodput),
    Bar("refusals at 10x, p99", "overload", "<= 100 ms", _refusals),
    Bar("requests neither answered nor refused", "overload", "0", _lost),
    Bar("memory over the soak", "soak", f"<= {FLAT_PERCENT:g}% more", _flat),
    Bar("left behind by the soak", "soak", "nothing", _left),
    Bar("unexpected answers in the soak", "soak", "none", _odd),
)


def judged(bar: Bar, result: CellResult) -> tuple[str, str]:
    """What was measured, and "met", "missed" or why nothing can be said."""
    if result.skipped:
        return "-", f"skipped: {result.skipped}"
    failed = [series for series in result.series if not series.samples]
    if failed:
        return "-", f"failed: {failed[0].error or 'stopped'}"
    measured, met = bar.judge(result)
    return measured, "met" if met else "missed"
