#!/usr/bin/env python3
"""What a model loses in int8 and int4: the same held-out items at every precision, paired.

    python benchmarks/precision.py --model nano -n 1000 --out benchmarks/results/precision-nano

Exports the model once per precision, asks every task of `phi4 eval` the same n items through ONNX Runtime,
and compares item by item with fp32. A cell that was measured is kept in cells.json, so a stopped run goes on.
Writes table.md, cells.json and machine.json. Scores are of generated held-out data (docs/data.md).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import phi4
from phi4.checkpoint import open_checkpoint, resolve_model
from phi4.cli.main import main
from phi4.engine.request import Request
from phi4.evals.run import judge
from phi4.evals.scorers import Outcome
from phi4.evals.tasks import Task, choose, within
from phi4.onnx.threads import thread_count
from phi4.types import Completion, SamplingParams

FORMS: dict[str, tuple[str, ...]] = {
    "fp32": ("--precision", "fp32"),
    "int8": ("--precision", "int8"),
    "int4": ("--precision", "int4"),
    "int4, GPTQ, blocks of 32, a tenth in 8 bits": (
        *("--precision", "int4", "--block-size", "32", "--calibrate", "world", "--sensitive", "10"),
    ),
}
"""What `phi4 export` is given for each."""
RESAMPLES, SEED = 4000, 20_261_122


@dataclass(frozen=True)
class Cell:
    """One task at one precision: errors and lengths, item by item."""

    errors: list[int]
    lengths: list[int]

    @property
    def score(self) -> float:
        """1 - errors / lengths, not below 0."""
        return max(0.0, 1.0 - sum(self.errors) / sum(self.lengths))


def measure(model: phi4.Phi4, task: Task, n: int) -> Cell:
    """Ask n items, thirty-two at a time."""
    samples = task.samples(n)
    sampling = SamplingParams(max_new_tokens=task.max_new_tokens)
    done: list[Completion] = []
    for first in range(0, n, 32):
        done += model.generate([Request(s.messages, s.tools, sampling) for s in samples[first : first + 32]])
        print(f"\r  {task.name} {len(done)}/{n}", end="", file=sys.stderr, flush=True)
    outcomes: Sequence[Outcome] = judge(task, samples, done)
    return Cell([o.errors for o in outcomes], [o.length for o in outcomes])


def paired(cell: Cell, fp32: Cell) -> tuple[float, float, float]:
    """Difference of scores in points with its 95% interval: percentile bootstrap over items, paired."""
    errors, lengths = (np.array([getattr(c, name) for c in (cell, fp32)]) for name in ("errors", "lengths"))
    picks = np.random.default_rng(SEED).integers(0, errors.shape[1], (RESAMPLES, errors.shape[1]))
    scores = [
        np.maximum(0.0, 1.0 - e[picks].sum(1) / s[picks].sum(1)) for e, s in zip(errors, lengths, strict=True)
    ]
    low, high = np.percentile(scores[0] - scores[1], (2.5, 97.5))
    return 100 * (cell.score - fp32.score), 100 * float(low), 100 * float(high)


def table(cells: dict[str, dict[str, Cell]], sizes: dict[str, float], n: int) -> str:
    """Markdown: a line a task, a column a precision."""
    forms = [form for form in FORMS if form in cells]
    lines = [
        f"| task (n = {n}) | fp32 score | "
        + " | ".join(f"{form}, points (95%)" for form in forms[1:])
        + " |",
        "|---|---:|" + "---:|" * len(forms[1:]),
    ]
    for name, fp32 in cells["fp32"].items():
        found = [paired(cells[form][name], fp32) for form in forms[1:]]
        lines.append(
            f"| {name} | {100 * fp32.score:.1f}% | "
            + " | ".join(f"{value:+.1f} ({low:+.1f} to {high:+.1f})" for value, low, high in found)
            + " |"
        )
    lines.append("| package, MB | " + " | ".join(f"{sizes[form]:.1f}" for form in forms) + " |")
    return "\n".join(lines) + "\n"


def run() -> None:
    """Measure what is missing, write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="nano", help="nano or a directory with safetensors weights")
    parser.add_argument("-n", type=int, default=1000, help="items a task (default: 1000)")
    parser.add_argument("--tasks", help="comma-separated names (default: all the model can be asked)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/precision"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    where = args.out / "cells.json"
    raw = json.loads(where.read_text()) if where.exists() else {}
    checkpoint = open_checkpoint(resolve_model(args.model))
    tasks = within(choose(args.tasks.split(",") if args.tasks else None), checkpoint.config.modalities)
    sizes: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for form, options in FORMS.items():
            folder = Path(scratch) / str(len(sizes))
            if main(["export", args.model, "--out", str(folder), *options]):
                raise SystemExit(f"{form}: the export failed")
            sizes[form] = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
            model = phi4.load(folder)
            for task in tasks:
                key = f"{form}/{task.name}/{args.n}"
                if key not in raw:
                    print(f"\r{form}", file=sys.stderr)
                    raw[key] = vars(measure(model, task, args.n))
                    where.write_text(json.dumps(raw))
    cells = {form: {t.name: Cell(**raw[f"{form}/{t.name}/{args.n}"]) for t in tasks} for form in FORMS}
    text = table(cells, sizes, args.n)
    (args.out / "table.md").write_text(text)
    facts = {
        "processor": platform.processor() or platform.machine(),
        "threads": thread_count(None),
        "phi4": phi4.__version__,
    }
    (args.out / "machine.json").write_text(json.dumps(facts, indent=2) + "\n")
    print("\n" + text)


if __name__ == "__main__":
    run()
