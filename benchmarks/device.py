#!/usr/bin/env python3
"""The model on this machine beside its peers: llama.cpp, transformers, OpenVINO GenAI, onnxruntime-genai.

    make bench-peers                                   # environments of the peers, once
    python benchmarks/device.py                        # everything; hours, 40 GB of disk, 24 GB of memory
    python benchmarks/device.py --quick                # a tiny model, to see that all of it works
    python benchmarks/device.py --only prefill,decode  # cells whose names begin so
    python benchmarks/device.py --list                 # cells and whether they are done

Full-size models with random weights; every program runs in an environment and a process of its own, with the
same token ids and as many threads as affinity and control group allow. Series of a cell take turns, and the
bandwidth of memory is read before each turn. Each cell is kept in a file, so a stopped run goes on where it
was; cells that failed are tried again. Writes cells/*.json, table.md, device.json and device.svg.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.artefacts import MEDIA
from harness.cells import Cell, all_cells
from harness.environments import Environments
from harness.machine import machine
from harness.measuring import Bench
from harness.programs import PROGRAMS
from harness.records import Store
from harness.report import write_report
from harness.scale import SCALES, Scale
from harness.workbench import Workbench, needed_for

from phi4.errors import Phi4Error
from phi4.onnx.machine.threads import thread_count

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results" / "device"
LIMIT_GB = 40.0
INTERRUPTED = 130


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="LIST", help="beginnings of names of cells, with commas")
    parser.add_argument("--repeat", type=int, metavar="N", help="turns of every cell (default: by cell)")
    parser.add_argument("--scratch", type=Path, default=Path("build/device"), help="default: build/device")
    parser.add_argument("--limit-gb", type=float, default=LIMIT_GB, help="disk to take there (default: 40)")
    parser.add_argument("--peers", type=Path, default=Path("build/peers"), help="default: build/peers")
    parser.add_argument(
        "--out", type=Path, help="default: benchmarks/results/device; with --quick in the scratch folder"
    )
    parser.add_argument("--threads", type=int, help="default: the CPUs this process may use")
    parser.add_argument(
        "--timeout", type=float, default=1800.0, metavar="S", help="of one answer (default: 1800)"
    )
    parser.add_argument("--again", action="store_true", help="measure cells that are done anew")
    parser.add_argument("--quick", action="store_true", help="a tiny model and few turns: tries the harness")
    parser.add_argument("--list", action="store_true", help="list the cells and measure nothing")
    return parser


def chosen_cells(scale: Scale, only: str | None, repeat: int | None) -> list[Cell]:
    """Cells to measure, in order.

    Raises:
        ValueError: A beginning that no name has.
    """
    cells = all_cells(scale)
    if repeat is not None:
        cells = [replace(cell, turns=repeat) for cell in cells]
    if only is None:
        return cells
    starts = tuple(start.strip() for start in only.split(",") if start.strip())
    unknown = [start for start in starts if not any(cell.name.startswith(start) for cell in cells)]
    if unknown or not starts:
        names = ", ".join(cell.name for cell in cells)
        wrong = ", ".join(unknown) or "that"
        raise ValueError(f"--only {only}: no cell begins with {wrong}; there is {names}")
    return [cell for cell in cells if cell.name.startswith(starts)]


def not_installed(environments: Environments) -> dict[str, str]:
    """Programs that cannot be measured, with the reason."""
    reasons = {name: environments.missing(program.environment) for name, program in PROGRAMS.items()}
    return {name: reason for name, reason in reasons.items() if reason}


def artefacts_of(cells: Sequence[Cell]) -> frozenset[str]:
    """Files that some cells still need."""
    programs = [PROGRAMS[name] for cell in cells for name in cell.programs]
    names = {program.artefact for program in programs}
    if any(series.media for cell in cells for series in cell.series):
        names.add(MEDIA)
    return needed_for(names)


def run(bench: Bench, store: Store, cells: Sequence[Cell], missing: dict[str, str]) -> None:
    """Measure cells one after the other and keep each at once."""
    for place, cell in enumerate(cells):
        bench.workbench.wanted = artefacts_of(cells[place:])
        print(f"[{place + 1}/{len(cells)}] {cell.name}: {cell.title}", file=sys.stderr)
        result = bench.measure(cell, missing)
        if result.skipped:
            print(f"  skipped: {result.skipped}", file=sys.stderr)
        store.write(result)


def main() -> int:
    """Measure what is missing, then show everything that is there."""
    parser = arguments()
    args = parser.parse_args()
    scale = SCALES["quick" if args.quick else "full"]
    scratch = args.scratch.resolve()
    peers = args.peers.absolute()  # not resolved: an environment is a folder of links
    places = {scratch: "SCRATCH", peers: "PEERS", Path(sys.prefix): "PYTHON", REPOSITORY: "."}
    store = Store((args.out or (scratch / "quick-results" if args.quick else RESULTS)).resolve(), places)
    try:
        threads = thread_count(args.threads)
        cells = chosen_cells(scale, args.only, args.repeat)
    except (Phi4Error, ValueError) as error:
        parser.error(str(error))
    if any(cell.turns < 1 for cell in cells):
        parser.error(f"--repeat {args.repeat}: give at least 1")
    facts = machine(threads)
    other = store.foreign(facts)
    if other is not None:
        parser.error(f"{store.folder}: measured on {other['processor']}; give another --out for this machine")
    environments = Environments(peers, threads)
    workbench = Workbench(scratch, scale, environments, 1e9 * args.limit_gb)
    missing = not_installed(environments)
    left = [cell for cell in cells if args.again or not store.done(cell, scale.name, missing)]
    if args.list:
        for cell in cells:
            kept = None if cell in left else store.read(cell.name)
            state = "to do" if kept is None else f"done, {kept.phi4}"
            print(f"{state:32} {cell.name:24} {cell.title}")
        return 0
    bench, code = Bench(scale, environments, workbench, args.timeout, " ".join(sys.argv)), 0
    try:
        run(bench, store, left, missing)
    except KeyboardInterrupt:
        print("stopped; the same command goes on with this cell", file=sys.stderr)
        code = INTERRUPTED
    finally:
        bench.crew.clear()
    store.folder.mkdir(parents=True, exist_ok=True)
    for path in write_report(store, all_cells(scale), scale, facts):
        print(path)
    return code


if __name__ == "__main__":
    sys.exit(main())
