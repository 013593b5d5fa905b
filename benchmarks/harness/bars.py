"""What is hoped for, and whether it was reached: figures of ours, or beside a peer's of the same turn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.records import CellResult
from phi4.bench.report import digits

Find = Callable[[str], CellResult | None]
"""Results by name of the cell."""


@dataclass(frozen=True)
class Bar:
    """One line of the table.

    Attributes:
        what: What is measured.
        profile: Which of ours.
        cell: Where it stands.
        numerator: The series that is judged.
        denominator: The series to divide it by, turn by turn; empty = the figure itself.
        limit: The bar.
        at_most: Whether less is better.
        beside: What the other is, in words.
        aim: What is hoped for beyond the bar, in words.
    """

    what: str
    profile: str
    cell: str
    numerator: str
    denominator: str
    limit: float
    at_most: bool = False
    beside: str = ""
    aim: str = ""

    @property
    def text(self) -> str:
        """The bar in words."""
        sign = "<=" if self.at_most else ">="
        times = "x " if self.denominator and not self.at_most else " of " if self.denominator else ""
        text = f"{sign} {self.limit:g}{times}{self.beside}".rstrip()
        return f"{text}; aim {self.aim}" if self.aim else text


def _both(what: str, cell: str, one: str, other: str, limit: float, beside: str, aim: str = "") -> list[Bar]:
    return [
        Bar(what, profile, cell, one.format(profile), other.format(profile), limit, beside=beside, aim=aim)
        for profile in ("fast", "lean")
    ]


def bars(rows: int, steps: int) -> list[Bar]:
    """All bars; `rows` sequences decode together, `steps` tokens are an answer."""
    batch, lookup, plain = f"{{}}, {rows} rows", "{}, prompt lookup", "{}, plain"
    copying = f"copied answer of {steps} tokens, all guesses right: an upper bound"
    return [
        Bar("prefill", "fast", "prefill.llamacpp", "fast", "llamacpp", 3.0, beside="llama.cpp Q4_0"),
        Bar(
            "prefill",
            "fast",
            "prefill.transformers",
            "fast",
            "transformers",
            1.2,
            beside="transformers bf16",
        ),
        Bar("prefill", "fast", "prefill.openvino", "fast", "openvino", 2.0, beside="OpenVINO GenAI"),
        Bar("prefill", "lean", "prefill.llamacpp", "lean", "llamacpp", 1.0, beside="llama.cpp Q4_0"),
        *_both("decode", "decode.llamacpp", "{}", "llamacpp", 1.0, "llama.cpp Q4_0 pure", "85% of bandwidth"),
        *_both(f"{rows} rows against 1", "batched", batch, "{}, 1 row", 3.0, "1 row", "3.5x"),
        *_both(copying, "copying", lookup, plain, 1.8, "plain"),
        Bar(
            "first token, picture and speech",
            "fast",
            "first-token",
            "fast",
            "transformers",
            0.65,
            at_most=True,
            beside="transformers bf16",
        ),
        Bar("speech encoder", "fast", "speech", "torch", "fast", 1.3, beside="torch bf16"),
        Bar("peak memory, GB", "lean", "memory", "lean", "", 2.8, True),
        Bar("peak memory, GB", "fast", "memory", "fast", "", 6.0, True),
        Bar("process start to first token, s", "lean", "start", "lean", "", 3.0, True),
        Bar("process start to first token, s", "fast", "start", "fast", "", 3.0, True),
        Bar("export to int4, s", "lean", "export", "lean", "", 300.0, True),
        Bar("export to int4, GB of memory", "lean", "export-memory", "lean", "", 3.0, True),
    ]


def judged(bar: Bar, find: Find) -> tuple[str, str]:
    """What was measured, and "met", "missed" or why nothing can be said."""
    result = find(bar.cell)
    if result is None:
        return "-", "not measured yet"
    if result.skipped:
        return "-", f"skipped: {result.skipped}"
    for label in filter(None, (bar.numerator, bar.denominator)):
        series = result.get(label)
        if series is None:
            return "-", "measured in another form; run the cell again"
        if not series.samples:
            return "-", f"{'skipped' if series.skipped else 'failed'}: {series.error}"
    values = result[bar.numerator].samples
    if bar.denominator:
        values = result.ratios(bar.numerator, bar.denominator)
    middle = statistics.median(values)
    met = middle <= bar.limit if bar.at_most else middle >= bar.limit
    return span(values), "met" if met else "missed"


def bandwidth_share(result: CellResult, label: str) -> float | None:
    """Share of the machine's bandwidth that decoding steps read with; None where bytes are not known."""
    series, bandwidth = result[label], result.bandwidth
    if series.median is None or not bandwidth or result.unit != "tokens/s":
        return None
    reply = series.replies[0]
    nbytes = reply.get("step_bytes") or series.facts.get("weight_bytes")
    asked = next(one for one in result.settings["series"] if one["label"] == label)
    if asked["operation"] != "decode" or not nbytes:
        return None
    steps_per_s = series.median / asked["args"].get("rows", 1)
    return float(nbytes * steps_per_s / bandwidth)


def span(values: Sequence[float]) -> str:
    """Median, then the least and the most."""
    middle = digits(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({digits(min(values))} to {digits(max(values))})"
