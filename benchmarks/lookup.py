#!/usr/bin/env python3
"""Does prompt lookup change answers? The same held-out items with it and without it, one at a time, greedy.

    python benchmarks/lookup.py --model nano -n 100 --out benchmarks/results/lookup-nano

Guesses are checked by the runner, so in exact arithmetic nothing can change. With 8 or 4 bits, positions that
are fed together are rounded otherwise than one alone (docs/onnx.md, "Limits"): where two candidates lie close
to each other the other one may be drawn. Such answers are counted, judged, and shown with the gap between the
two best candidates, in log-probability, where the answers part. Writes table.md and lookup.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from harness.machine import commit
from interop_llamacpp import first_difference

import phi4
from phi4.bench.machine import machine_facts
from phi4.engine.drawing.sampler import draw
from phi4.engine.generator import Generator
from phi4.engine.request import Request
from phi4.evals.intervals import score
from phi4.evals.run import judge
from phi4.evals.scorers import Outcome
from phi4.evals.tasks import Task, choose, within
from phi4.onnx.machine.threads import thread_count
from phi4.types import SamplingParams


@dataclass(frozen=True)
class Parting:
    """An answer that prompt lookup changed.

    Attributes:
        item: Number of the item.
        at: Place of the first token that differs.
        gap: Between the two best candidates there, without lookup.
        plain: The answer without lookup.
        guessing: The answer with it.
    """

    item: int
    at: int
    gap: float
    plain: str
    guessing: str


@dataclass
class Found:
    """One task, both ways.

    Attributes:
        task: Its name.
        n: Items.
        tokens: Tokens of the answers with lookup.
        drafted: Tokens guessed.
        accepted: Of those the ones that were right, each a step saved.
        outcomes: Errors and length of each item without lookup, and with it.
        partings: Answers that differ.
    """

    task: str
    n: int
    tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    outcomes: tuple[list[Outcome], list[Outcome]] = field(default_factory=lambda: ([], []))
    partings: list[Parting] = field(default_factory=list)


def compare(model: phi4.Phi4, task: Task, n: int) -> Found:
    """Ask n items both ways."""
    parts = (model.generator.runner, model.generator.processor, model.tokenizer)
    plain, guessing = (Generator(*parts, speculate=speculate) for speculate in (False, True))
    sampling, found = SamplingParams(max_new_tokens=task.max_new_tokens), Found(task.name, n)
    for item, sample in enumerate(task.samples(n)):
        request = Request(sample.messages, sample.tools, sampling)
        with recording_gaps() as gaps:
            (one,) = plain.generate([request])
        (other,) = guessing.generate([request])
        for side, completion in zip(found.outcomes, (one, other), strict=True):
            side += judge(task, [sample], [completion])
        found.tokens += len(other.token_ids)
        found.drafted += other.timing.drafted
        found.accepted += other.timing.accepted
        at = first_difference(one.token_ids, other.token_ids)
        if at is not None:
            found.partings.append(Parting(item, at, gaps[at], one.text, other.text))
        print(f"\r{task.name} {item + 1}/{n}, {len(found.partings)} differ", end="", file=sys.stderr)
    print(file=sys.stderr)
    return found


@contextmanager
def recording_gaps() -> Iterator[list[float]]:
    """Inside, every draw of the onnx runner adds the gap between its two best candidates."""
    gaps: list[float] = []

    def recorded(logits: Any, sampling: Any, position: int, allowed: Any = None) -> int:
        second, best = np.partition(logits, -2)[-2:]
        gaps.append(float(best - second))
        return draw(logits, sampling, position, allowed)

    with mock.patch("phi4.onnx.serving.results.draw", recorded):
        yield gaps


def table(found: Sequence[Found]) -> str:
    """Markdown: a line a task."""
    lines = [
        "| task | answers | changed | right without/with | largest gap | score, points | tokens | guessed | "
        "of these right |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for one in found:
        plain, guessing = one.outcomes
        change = 100 * (score(guessing).value - score(plain).value)
        both = [f"{plain[p.item].right:d}/{guessing[p.item].right:d}" for p in one.partings]
        gap = max((parting.gap for parting in one.partings), default=None)
        lines.append(
            f"| {one.task} | {one.n} | {len(one.partings)} | {', '.join(both) or '-'} "
            f"| {'-' if gap is None else f'{gap:.4f}'} | {change:+.1f} "
            f"| {one.tokens} | {one.drafted} | {one.accepted} |"
        )
    changed, answers = sum(len(one.partings) for one in found), sum(one.n for one in found)
    return "\n".join([*lines, "", f"{changed} of {answers} answers changed."]) + "\n"


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="nano", help="nano, or a package (default: nano, in int8)")
    parser.add_argument("-n", type=int, default=100, help="items a task (default: 100)")
    parser.add_argument("--tasks", help="comma-separated names (default: all the model can be asked)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/lookup"))
    return parser.parse_args()


def main() -> None:
    """Compare, write the table."""
    args = parse()
    model = phi4.load(args.model, runner="onnx")
    tasks = within(choose(args.tasks.split(",") if args.tasks else None), model.config.modalities)
    found = [compare(model, task, args.n) for task in tasks]
    args.out.mkdir(parents=True, exist_ok=True)
    text = table(found)
    (args.out / "table.md").write_text(text)
    facts = {**machine_facts(thread_count(None)), "commit": commit(), "model": Path(args.model).name}
    document = {"machine": facts, "tasks": [shown(one) for one in found]}
    (args.out / "lookup.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    print("\n" + text)


def shown(found: Found) -> dict[str, Any]:
    """A task without its outcomes, which the table has."""
    return {key: value for key, value in asdict(found).items() if key != "outcomes"}


if __name__ == "__main__":
    main()
