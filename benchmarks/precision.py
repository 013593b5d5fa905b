#!/usr/bin/env python3
"""What a model loses in int8 and int4: the same held-out items of every package, paired.

    python benchmarks/precision.py --model nano -n 1000 --out benchmarks/results/precision-nano

Exports the model once in every form, among them the two profiles whose speed `device.py` measures, asks
every task of `phi4 eval` the same n items through ONNX Runtime, and compares item by item with fp32. A cell
that was measured is kept in cells.json, so a stopped run goes on. Writes table.md, cells.json and
machine.json. Scores are of generated held-out data (docs/data.md).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.artefacts import PROFILES
from harness.machine import commit

import phi4
from phi4.bench.machine import machine_facts
from phi4.checkpoint import Checkpoint, open_checkpoint, resolve_model
from phi4.checkpoint.manifest import sha256_file
from phi4.cli.main import main
from phi4.engine.request import Request
from phi4.evals.intervals import Estimate, difference, score
from phi4.evals.run import judge
from phi4.evals.scorers import Outcome
from phi4.evals.tasks import Task, choose, within
from phi4.onnx.machine.threads import thread_count
from phi4.types import Completion, SamplingParams

FORMS: dict[str, tuple[str, ...]] = {
    "fp32": ("--precision", "fp32"),
    "int8": ("--precision", "int8"),
    "int8 with --fast": ("--precision", "int8", "--fast"),
    "int4": ("--precision", "int4"),
    "profile fast": PROFILES["fast"],
    "profile lean": PROFILES["lean"],
    "int4, GPTQ, blocks of 32, a tenth in 8 bits": (
        *("--precision", "int4", "--block-size", "32", "--calibrate", "world", "--sensitive", "10"),
    ),
}
"""What `phi4 export` is given for each."""


@dataclass(frozen=True)
class Cell:
    """One task in one form: errors and lengths, item by item.

    Attributes:
        errors: See `Outcome`.
        lengths: See `Outcome`.
        phi4: Version and commit that answered.
    """

    errors: list[int]
    lengths: list[int]
    phi4: str = "unknown"

    @property
    def outcomes(self) -> list[Outcome]:
        """The items as `phi4.evals.intervals` takes them.

        Counted twice, which changes no rate: of single right-or-wrong items `difference` would take the two
        sides as independent, and these are the same items.
        """
        return [Outcome(2 * e, 2 * n) for e, n in zip(self.errors, self.lengths, strict=True)]


class Cells:
    """What has been measured of one model, in a file.

    Args:
        where: The file.
        setting: What all of it is of.

    Raises:
        SystemExit: The file is of another model.
    """

    def __init__(self, where: Path, setting: Mapping[str, str]) -> None:
        self._where = where
        self._found: dict[str, Any] = {"setting": dict(setting), "cells": {}}
        if where.exists():
            self._found = json.loads(where.read_text())
        if self._found.get("setting") != setting:
            sys.exit(f"{where}: of other weights; delete it to measure anew, or choose another --out")

    def has(self, form: str, task: str, n: int) -> bool:
        """Whether a cell was measured."""
        return f"{form}/{task}/{n}" in self._found["cells"]

    def get(self, form: str, task: str, n: int) -> Cell:
        """A measured cell."""
        return Cell(**self._found["cells"][f"{form}/{task}/{n}"])

    def put(self, form: str, task: str, n: int, cell: Cell) -> None:
        """Keep a cell at once; a run that is stopped meanwhile leaves the old file."""
        self._found["cells"][f"{form}/{task}/{n}"] = vars(cell)
        part = self._where.with_suffix(".part")
        part.write_text(json.dumps(self._found) + "\n")
        part.replace(self._where)


def identity(checkpoint: Checkpoint) -> str:
    """A digest of weights, config and tokenizer."""
    named = (checkpoint.path / "config.json", checkpoint.path / "tokenizer.json")
    files = {*named, *(entry.file for entry in checkpoint.entries.values())}
    return hashlib.sha256("".join(map(sha256_file, sorted(files))).encode()).hexdigest()


def measure(model: phi4.Phi4, task: Task, n: int) -> Cell:
    """Ask n items, thirty-two at a time."""
    samples = task.samples(n)
    sampling = SamplingParams(max_new_tokens=task.max_new_tokens)
    done: list[Completion] = []
    for first in range(0, n, 32):
        done += model.generate([Request(s.messages, s.tools, sampling) for s in samples[first : first + 32]])
        print(f"\r  {task.name} {len(done)}/{n}", end="", file=sys.stderr, flush=True)
    outcomes: Sequence[Outcome] = judge(task, samples, done)
    print(file=sys.stderr)
    return Cell(
        [o.errors for o in outcomes], [o.length for o in outcomes], f"{phi4.__version__} ({commit()})"
    )


def points(found: Estimate) -> str:
    """A difference of scores in points with its interval."""
    return f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def table(cells: dict[str, dict[str, Cell]], sizes: dict[str, float], n: int) -> str:
    """Markdown: a line a task, a column a form."""
    forms = list(cells)
    others = [form for form in forms if form != "fp32"]
    lines = [
        f"| task (n = {n}) | fp32 score | " + " | ".join(f"{form}, points (95%)" for form in others) + " |",
        "|---|---:|" + "---:|" * len(others),
    ]
    for name, fp32 in cells["fp32"].items():
        found = [points(difference(cells[form][name].outcomes, fp32.outcomes)) for form in others]
        lines.append(f"| {name} | {100 * score(fp32.outcomes).value:.1f}% | {' | '.join(found)} |")
    lines.append("| package, MB | " + " | ".join(f"{sizes[form]:.1f}" for form in forms) + " |")
    made = {form: ", ".join(dict.fromkeys(cell.phi4 for cell in cells[form].values())) for form in forms}
    lines += ["", "| form | `phi4 export` | measured with phi4 |", "|---|---|---|"]
    lines += [f"| {form} | `{' '.join(FORMS[form])}` | {made[form]} |" for form in forms]
    return "\n".join(lines) + "\n"


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="nano", help="nano or a directory with safetensors weights")
    parser.add_argument("-n", type=int, default=1000, help="items a task (default: 1000)")
    parser.add_argument("--tasks", help="comma-separated names (default: all the model can be asked)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/precision"))
    return parser.parse_args()


def export_and_measure(model: str, form: str, tasks: Sequence[Task], n: int, kept: Cells) -> float:
    """Write a package and measure what is missing of it; returns its size in MB."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "package"
        if main(["export", model, "--out", str(folder), *FORMS[form]]):
            sys.exit(f"{form}: the export failed")
        opened = phi4.load(folder)
        for task in tasks:
            if not kept.has(form, task.name, n):
                print(form, file=sys.stderr)
                kept.put(form, task.name, n, measure(opened, task, n))
        return sum(file.stat().st_size for file in folder.iterdir()) / 1e6


def run() -> None:
    """Measure what is missing, write the table."""
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint = open_checkpoint(resolve_model(args.model))
    setting = {"model": Path(args.model).name, "weights": identity(checkpoint)}
    kept = Cells(args.out / "cells.json", setting)
    tasks = within(choose(args.tasks.split(",") if args.tasks else None), checkpoint.config.modalities)
    sizes = {form: export_and_measure(args.model, form, tasks, args.n, kept) for form in FORMS}
    cells = {form: {task.name: kept.get(form, task.name, args.n) for task in tasks} for form in FORMS}
    text = table(cells, sizes, args.n)
    (args.out / "table.md").write_text(text)
    facts = machine_facts(thread_count(None))
    (args.out / "machine.json").write_text(json.dumps(facts, indent=2) + "\n")
    print("\n" + text)


if __name__ == "__main__":
    run()
