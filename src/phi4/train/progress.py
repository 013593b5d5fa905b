"""How a run shows itself: a metrics log, a bar or plain lines, TensorBoard scalars, a loss picture.

The JSONL log is always written. The bar needs a terminal (rich); without one there are plain lines.
TensorBoard and matplotlib belong to the extra `train` and are used when installed. Lines of steps that
a resumed run repeats are dropped from the log first, so a log has every step at most once.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]


class MetricsLog:
    """`metrics.jsonl`: one JSON object per logged step.

    Args:
        path: File, created when missing.
        step: Step the run goes on from; later lines are leftovers of a crashed run and are removed.
    """

    def __init__(self, path: Path, step: int) -> None:
        kept = [line for line in read_metrics(path) if line["step"] <= step]
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        os.replace(temporary, path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, record: Record) -> None:
        """Append a record; flushed at once."""
        self._file.write(json.dumps(dict(record)) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Records of a metrics log; a line cut off by a crash is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def describe(record: Record) -> str:
    """One line for people: step, loss, per-task losses, speed, time left."""
    total = record.get("total_steps")
    tasks = " ".join(f"{name} {value:.3f}" for name, value in record.get("tasks", {}).items())
    skipped = f" skipped {record['skipped']}" if record.get("skipped") else ""
    return (
        f"{record['stage']} {record['step']}/{total or '?'} loss {record['loss']:.4f} [{tasks}] "
        f"{record['tokens_per_s']:.0f} tok/s {record['rows_per_s']:.1f} rows/s lr x{record['lr_factor']:.3f}"
        f"{skipped} left {_duration(record.get('left_s'))}"
    )


class Display:
    """A progress bar on a terminal, plain lines elsewhere, silence when `quiet`."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        if not quiet and sys.stderr.isatty() and importlib.util.find_spec("rich"):
            from rich.progress import BarColumn, Progress, TextColumn

            self._bar = Progress(BarColumn(bar_width=30), TextColumn("{task.description}"), transient=False)
            self._bar.start()
            self._task = self._bar.add_task("starting", total=None)

    def update(self, record: Record) -> None:
        """Show a log record."""
        if self._bar is not None:
            done = record["step"]
            self._bar.update(
                self._task, description=describe(record), completed=done, total=record["total_steps"]
            )
        elif not self._quiet:
            print(describe(record), file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Show a sentence."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False)
        elif not self._quiet:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()


class Scalars:
    """TensorBoard scalars below `folder`; does nothing when TensorBoard is not installed."""

    def __init__(self, folder: Path, step: int) -> None:
        self._writer: Any = None
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, record: Record) -> None:
        """Every number of a record; those kept by task under `tasks/NAME`, `accuracy/NAME` and so on."""
        if self._writer is None:
            return
        nested = {key: values for key, values in record.items() if isinstance(values, Mapping)}
        flat = {
            **record,
            **{f"{key}/{name}": v for key, values in nested.items() for name, v in values.items()},
        }
        for name, value in flat.items():
            if isinstance(value, int | float) and name != "step":
                self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            self._writer.close()


def draw_losses(log: Path, picture: Path) -> bool:
    """Draw loss against step, one line per task, from a metrics log.

    Returns:
        False when there is nothing to draw or matplotlib is not installed.
    """
    records = read_metrics(log)
    if not records or importlib.util.find_spec("matplotlib") is None:
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for name in sorted({name for record in records for name in record["tasks"]}):
        points = [(record["step"], record["tasks"][name]) for record in records if name in record["tasks"]]
        axes.plot(*zip(*points, strict=True), label=name, linewidth=1)
    axes.set(xlabel="step", ylabel="loss", yscale="log", title="Training loss by task")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=120)
    return True


class Reporter:
    """All outputs of a run behind `log` and `say`.

    Args:
        folder: Run folder.
        step: Step the run goes on from.
        quiet: No output on the terminal.
    """

    def __init__(self, folder: Path, step: int, quiet: bool = False) -> None:
        self._folder = folder
        self._metrics = MetricsLog(folder / "metrics.jsonl", step)
        self._scalars = Scalars(folder / "tensorboard", step)
        self._display = Display(quiet)

    def log(self, record: Record) -> None:
        """Record and show one logging interval."""
        self._metrics.write(record)
        self._scalars.write(record)
        self._display.update(record)

    def say(self, text: str) -> None:
        """Show a sentence."""
        self._display.say(text)

    def close(self) -> None:
        """Close every output and draw the loss picture."""
        self._display.close()
        self._scalars.close()
        self._metrics.close()
        draw_losses(self._folder / "metrics.jsonl", self._folder / "loss.png")
