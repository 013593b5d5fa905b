#!/usr/bin/env python3
"""How well each way of choosing 4-bit weights keeps next-token distributions, and what each layer loses.

    python benchmarks/quantisation.py --model nano --out benchmarks/results/quantisation-nano
    python benchmarks/make_random_checkpoint.py mini scratch/mini
    python benchmarks/quantisation.py --model scratch/mini --random-tokens 256 --calibrate-rows 32 \\
        --judge-rows 8 --sensitivity-tokens 256 --out benchmarks/results/quantisation-mini

Every cell exports the model, compares the package as it answers with the exact model on rows that were not
calibrated with (KL divergence and the best token of every judged position), and deletes the package. The
exact model is walked through layer by layer from its checkpoint, so nothing needs it in float32. Layers are
measured a few at a time, each alone with 4 bits. What was measured stands in cells.json, so a stopped run
goes on. Writes table.md, cells.json, sensitivity.svg and machine.json.

Random weights and ids tell what a method costs, and hardly what it gains: their activations have no structure
that errors could be hidden in.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from phi4.bench.layers import draw_layers
from phi4.bench.machine import machine_facts
from phi4.checkpoint import Checkpoint, open_checkpoint, resolve_model
from phi4.checkpoint.manifest import sha256_file
from phi4.configs import Phi4Config
from phi4.data.calibration import world_inputs
from phi4.onnx import open_package
from phi4.onnx.build.options import CALIBRATED, ExportOptions, PrecisionName, exported_config
from phi4.onnx.building import export_package, measure_layers
from phi4.onnx.calibrate.judging import Reference, judge
from phi4.onnx.calibrate.measuring import MEASURED_TOKENS, first_rows
from phi4.onnx.calibrate.mixed import decoder_bytes, eight_bits
from phi4.onnx.calibrate.rows import digest, make_rows
from phi4.onnx.calibrate.texts import read_texts
from phi4.onnx.calibrate.walk import DecoderWeights
from phi4.onnx.machine.threads import thread_count
from phi4.onnx.serving.session import choose_session
from phi4.processing.processor import Processor
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.types import ModelInputs

MIXED_PERCENT = 10
CELLS: dict[str, ExportOptions] = {
    "rtn, block 128": ExportOptions(),
    "rtn, block 32": ExportOptions(block_size=32),
    "search, block 128": ExportOptions(method="search"),
    "search, block 32": ExportOptions(method="search", block_size=32),
    "weighted, block 128": ExportOptions(method="weighted"),
    "gptq, block 128": ExportOptions(method="gptq"),
    "gptq, block 32": ExportOptions(method="gptq", block_size=32),
    "search, mixed": ExportOptions(method="search"),
    "gptq, mixed": ExportOptions(method="gptq"),
    "int8": ExportOptions("int8"),
}
"""What is compared; "mixed" has blocks of 128 and gives the most sensitive layers 8 bits, up to
`MIXED_PERCENT` more bytes."""
SEED = 20_261_122


@dataclass
class Bench:
    """One model, its rows, and what has been measured of it.

    Attributes:
        checkpoint: The model.
        calibrating: Rows to calibrate with.
        judging: Others, to judge on.
        scratch: Where packages are written for as long as they are measured.
        where: The file of the measurements.
        found: Its content.
    """

    checkpoint: Checkpoint
    calibrating: list[ModelInputs]
    judging: list[ModelInputs]
    scratch: Path
    where: Path
    found: dict[str, Any]
    _reference: Reference | None = None

    @property
    def config(self) -> Phi4Config:
        """The model as packages have it."""
        return exported_config(self.checkpoint.config, ExportOptions())

    def reference(self) -> Reference:
        """The exact model's states, walked through once a run."""
        if self._reference is None:
            note("walking through the exact model")
            choice = choose_session()
            rows = make_rows(self.checkpoint, self.config, self.judging, choice)
            self._reference = Reference.of(DecoderWeights(self.checkpoint, self.config), rows, choice)
        return self._reference

    def sensitive_layers(self, tokens: int, at_once: int) -> tuple[str, ...]:
        """Measure layers, a few at a time, and draw them; those that get 8 bits in the mixed packages."""
        layers = self.config.decoder.num_hidden_layers
        # Not on the rows that judge: the choice of layers is part of what is judged.
        rows = first_rows(self.calibrating, tokens)
        kept = self.found.setdefault("sensitivity", {})
        for first in range(0, layers, at_once):
            part = range(first, min(first + at_once, layers))
            if f"decoder.layers.{part[-1]}.mlp.down_proj" not in kept:
                note(f"measuring layers {part[0]} to {part[-1]} of {layers}")
                measured = measure_layers(self.checkpoint, ExportOptions(), rows, part)
                kept |= {name: fidelity.as_dict() for name, fidelity in measured.items()}
                self.save()
        losses = {name: values["nats"] for name, values in kept.items()}
        chosen = eight_bits(losses, self.config, 128, decoder_bytes(self.config, 128) * MIXED_PERCENT // 100)
        title = f"{self.found['setting']['model']}, 4 bits in blocks of 128, searched scales"
        draw_layers(losses, chosen, title, self.where.with_name("sensitivity.svg"))
        return chosen

    def measure(self, name: str, options: ExportOptions) -> None:
        """One cell: export, judge, delete."""
        note(name)
        folder = self.scratch / "package"
        shutil.rmtree(folder, ignore_errors=True)
        rows = self.calibrating if options.method in CALIBRATED else ()
        started = time.perf_counter()
        export_package(self.checkpoint, folder, options, rows=rows)
        seconds = time.perf_counter() - started
        fidelity = judge(open_package(folder, ("text",)), self.reference(), choose_session())
        self.found.setdefault("cells", {})[name] = {
            **fidelity.as_dict(),
            "export_seconds": round(seconds, 2),
            "bytes": sum(file.stat().st_size for file in folder.iterdir()),
            "decoder_bytes": (folder / "decoder.onnx.data").stat().st_size,
            "eight_bit_layers": len(options.layers),
        }
        shutil.rmtree(folder)
        self.save()

    def save(self) -> None:
        """Keep what was measured, also if the next cell is stopped."""
        part = self.where.with_suffix(".part")
        part.write_text(json.dumps(self.found, indent=1) + "\n")
        part.replace(self.where)


def table(cells: dict[str, dict[str, Any]]) -> str:
    """Markdown: a line a cell, in the order of `CELLS`."""
    lines = [
        "| weights | KL, nats | 99th percentile | same best token | package | decoder | export |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in CELLS:
        if name in cells:
            cell = cells[name]
            lines.append(
                f"| {name} | {cell['nats']:.5f} | {cell['worst_nats']:.4f} | {100 * cell['agreement']:.1f}% "
                f"| {cell['bytes'] / 1e6:,.1f} MB | {cell['decoder_bytes'] / 1e6:,.2f} MB "
                f"| {cell['export_seconds']:,.1f} s |"
            )
    positions = next(iter(cells.values()))["positions"] if cells else 0
    return "\n".join([*lines, "", f"{positions:,} positions judged."]) + "\n"


def random_inputs(config: Phi4Config, rows: int, tokens: int, seed: int) -> list[ModelInputs]:
    """Rows of random ids."""
    random = np.random.default_rng([SEED, seed])
    return [ModelInputs(random.integers(0, config.decoder.vocab_size, tokens)) for _ in range(rows)]


def inputs_of(
    args: argparse.Namespace, checkpoint: Checkpoint
) -> tuple[list[ModelInputs], list[ModelInputs]]:
    """Rows to calibrate with, and others to judge on."""
    if args.random_tokens:
        return (
            random_inputs(checkpoint.config, args.calibrate_rows, args.random_tokens, 0),
            random_inputs(checkpoint.config, args.judge_rows, args.random_tokens, 1),
        )
    processor = Processor(checkpoint.config, Phi4Tokenizer.load(checkpoint.path))
    if args.texts is not None:
        rows = read_texts(args.texts, processor)
        return rows[args.judge_rows :][: args.calibrate_rows], rows[: args.judge_rows]
    return (
        world_inputs(processor, args.calibrate_rows, "train"),
        world_inputs(processor, args.judge_rows, "test"),
    )


def identity(checkpoint: Checkpoint, calibrating: list[ModelInputs], judging: list[ModelInputs]) -> str:
    """A digest of weights and rows: measurements of others are not taken up again."""
    files = sorted({entry.file for entry in checkpoint.entries.values()})
    parts = [*map(sha256_file, files), digest(calibrating), digest(judging)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def note(text: str) -> None:
    """Say what is being done."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="nano", help="nano, or a directory")
    parser.add_argument("--texts", type=Path, help="lines of text or messages (default: the small world)")
    parser.add_argument("--random-tokens", type=int, metavar="N", help="rows of N random ids in their place")
    parser.add_argument("--calibrate-rows", type=int, default=128)
    parser.add_argument("--judge-rows", type=int, default=390)
    parser.add_argument(
        "--sensitivity-tokens",
        type=int,
        default=MEASURED_TOKENS,
        help="positions layers are measured on, of the rows calibrated with; 0 = no picture, no mixed cells",
    )
    parser.add_argument("--layers-at-once", type=int, default=8, help="decoder layers measured in one walk")
    parser.add_argument("--cells", help=f"some of: {'; '.join(CELLS)} (separated by ;)")
    parser.add_argument("--scratch", type=Path, default=Path("build/quantisation"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quantisation"))
    return parser.parse_args()


def opened(args: argparse.Namespace) -> Bench:
    """The model, its rows, and what an earlier run measured of the same."""
    checkpoint = open_checkpoint(resolve_model(args.model))
    calibrating, judging = inputs_of(args, checkpoint)
    setting = {
        "model": Path(args.model).name,
        "weights_and_rows": identity(checkpoint, calibrating, judging),
        "sensitivity_tokens": args.sensitivity_tokens,
    }
    where = args.out / "cells.json"
    found = json.loads(where.read_text()) if where.exists() else {"setting": setting}
    if found["setting"] != setting:
        sys.exit(f"{where}: of other weights or rows; delete it to measure anew, or choose another --out")
    return Bench(checkpoint, calibrating, judging, args.scratch, where, found)


def main() -> None:
    """Measure what is missing, write table and picture."""
    args = parse()
    wanted = args.cells.split(";") if args.cells else list(CELLS)
    if unknown := [name for name in wanted if name not in CELLS]:
        sys.exit(f"no such cell: {unknown[0]!r}; there are {'; '.join(CELLS)}")
    args.out.mkdir(parents=True, exist_ok=True)
    args.scratch.mkdir(parents=True, exist_ok=True)
    bench = opened(args)
    chosen: tuple[str, ...] = ()
    if args.sensitivity_tokens > 0:
        chosen = bench.sensitive_layers(args.sensitivity_tokens, args.layers_at_once)
    for name in wanted:
        layers: dict[str, PrecisionName] = dict.fromkeys(chosen, "int8") if name.endswith("mixed") else {}
        if name not in bench.found.get("cells", {}) and (layers or not name.endswith("mixed")):
            bench.measure(name, replace(CELLS[name], layers=layers))
    text = table(bench.found.get("cells", {}))
    (args.out / "table.md").write_text(text)
    facts = machine_facts(thread_count(None))
    (args.out / "machine.json").write_text(json.dumps(facts, indent=2) + "\n")
    print("\n" + text)


if __name__ == "__main__":
    main()
