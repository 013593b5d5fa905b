"""Pictures of the results: bars for each model, and memory over the time of the soak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.records import CellResult

from phi4.bench import Report, Row, draw
from phi4.bench.svg import FAINT, GREY, text, write_svg

_COLOURS = ("#2b6cb0", "#dd8a3a", "#2f855a", "#805ad5", "#c53030", "#0f766e")
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 860, 420, 70, 70, 40
_MARKS = 5
_COMMAND_CHARS = 110


def draw_model(model: str, results: Sequence[CellResult], facts: dict[str, Any], path: Path) -> None:
    """Tokens, first tokens and gaps of a model by how many ask, and of llama.cpp's server where it was asked.

    Args:
        model: Its name.
        results: Of its cells.
        facts: The machine.
        path: The file.
    """
    rows = [row for result in results for row in _rows(result)]
    labels = dict.fromkeys(label for row in rows for label in row.samples)
    machine = {
        "processor": facts["processor"],
        "threads": f"{facts['threads']} threads on {facts['cpus']} CPUs, the client's among them",
        "system": facts["system"],
    }
    command = {
        series.program: str(series.facts.get("command", ""))[:_COMMAND_CHARS]
        for result in results
        for series in result.series
    }
    runners = {label: command[label] for label in labels}
    draw(Report(f"serving {model}", machine, runners, tuple(rows), ()), path)


def _rows(result: CellResult) -> list[Row]:
    """Three rows for each number of users: ours and, in the cell beside it, llama.cpp's."""
    kind = result.cell.partition(".")[0]
    if kind not in ("users", "llamacpp") or result.skipped:
        return []
    by_users: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for series in result.series:
        users = series.label.rpartition(", ")[2]
        by_users.setdefault(users, {})[series.program] = series.replies
    what = "chat, " if kind == "llamacpp" else ""
    rows = []
    for users, programs in by_users.items():
        for name, unit, key, more in (
            (f"{what}{users}", "tokens/s", "tokens_per_s", True),
            (f"{what}{users}, first token p99", "ms", "first_token_p99_ms", False),
            (f"{what}{users}, between pieces p99", "ms", "gap_p99_ms", False),
        ):
            samples = {
                program: tuple(reply[key] for reply in replies if reply[key] is not None)
                for program, replies in programs.items()
            }
            rows.append(Row("prompt" if "first" in name else "answer", name, unit, more, samples))
    return rows


def draw_memory(title: str, reply: Mapping[str, Any], path: Path) -> None:
    """Memory of each process, and of all together, over time.

    Args:
        title: What was done.
        reply: What the soak told.
        path: The file.
    """
    at_s: list[float] = reply["at_s"]
    held: dict[str, list[float]] = reply["resident_MB"]
    lines = {"all": [sum(values) for values in zip(*held.values(), strict=True)], **held}
    end_s, most = max(at_s[-1], 1), 1.1 * max(lines["all"])
    drawn = [text(16, 26, title, size=16, weight="bold")]
    for mark in range(_MARKS + 1):
        value = most * mark / _MARKS
        y = _y(value, most)
        drawn += [_path([(_LEFT, y), (_WIDTH - 16, y)], GREY, 0.3)]
        drawn += [text(_LEFT - 8, y + 4, f"{value:,.0f} MB", anchor="end", colour=FAINT)]
        minutes = end_s / 60 * mark / _MARKS
        x = _x(end_s * mark / _MARKS, end_s)
        drawn += [text(x, _HEIGHT - 14, f"{minutes:.3g} min", anchor="middle", colour=FAINT)]
    for number, (role, values) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = [(_x(s, end_s), _y(value, most)) for s, value in zip(at_s, values, strict=True)]
        drawn += [_path(points, colour, 1.5), text(16 + 130 * number, 50, role, colour=colour, weight="bold")]
    write_svg(path, drawn, _WIDTH, _HEIGHT)


def _x(seconds: float, end_s: float) -> float:
    return _LEFT + (_WIDTH - 16 - _LEFT) * seconds / end_s


def _y(value: float, most: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * value / most


def _path(points: Sequence[tuple[float, float]], colour: str, width: float) -> str:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f"<polyline points='{places}' fill='none' stroke='{colour}' stroke-width='{width}'/>"
