#!/usr/bin/env python3
"""`phi4 serve` under load: many users, more than fit, beside its engine alone and llama.cpp's server.

    make bench-peers                                    # llama.cpp's server among others, once
    python benchmarks/serving.py                        # nano; half an hour
    python benchmarks/serving.py --model mini-int4      # and a model of yours, text prompts only
    python benchmarks/serving.py --soak-minutes 15      # and a long time of everything
    python benchmarks/serving.py --cells users,rows     # cells whose names begin so
    python benchmarks/serving.py --list                 # cells and whether they are done

Real servers answer over real HTTP; first tokens and gaps are timed at the client, which runs here, on the
same machine: what it costs is measured and stands in the table. Series of a cell take turns. Each cell is
kept in a file, so a stopped run goes on where it was. Writes cells/*.json, table.md, serving.json and
pictures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.environments import Environments
from harness.machine import machine
from harness.records import Store
from load import overload, rates, soak
from load.bench import Bench, Kind
from load.cells import Cell, all_cells, done
from load.models import LARGE, NANO, SMALL, Served
from load.report import write_report

from phi4.errors import Phi4Error
from phi4.onnx.machine.threads import thread_count

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results" / "serving"
INTERRUPTED = 130
KINDS: dict[str, Kind] = {
    "client": rates.client,
    "users": rates.users,
    "rows": rates.rows,
    "engine": rates.engine,
    "llamacpp": rates.beside_llamacpp,
    "overload": overload.overload,
    "soak": soak.soak,
}


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", action="append", default=[], type=Path, metavar="DIR", help="a large model beside nano"
    )
    parser.add_argument("--cells", metavar="LIST", help="beginnings of names of cells, with commas")
    parser.add_argument("--soak-minutes", type=float, default=0.0, metavar="N", help="default: no soak")
    parser.add_argument("--scratch", type=Path, default=Path("build/serving"), help="default: build/serving")
    parser.add_argument("--peers", type=Path, default=Path("build/peers"), help="default: build/peers")
    parser.add_argument("--out", type=Path, default=RESULTS, help="default: benchmarks/results/serving")
    parser.add_argument("--threads", type=int, help="default: the CPUs this process may use")
    parser.add_argument("--again", action="store_true", help="measure cells that are done anew")
    parser.add_argument("--list", action="store_true", help="list the cells and measure nothing")
    return parser


def chosen_cells(cells: Sequence[Cell], only: str | None) -> list[Cell]:
    """Cells to measure, in order.

    Raises:
        ValueError: A beginning that no name has.
    """
    if only is None:
        return list(cells)
    starts = tuple(start.strip() for start in only.split(",") if start.strip())
    unknown = [start for start in starts if not any(cell.name.startswith(start) for cell in cells)]
    if unknown or not starts:
        names = ", ".join(cell.name for cell in cells)
        raise ValueError(
            f"--cells {only}: no cell begins with {', '.join(unknown) or 'that'}; there is {names}"
        )
    return [cell for cell in cells if cell.name.startswith(starts)]


def run(bench: Bench, store: Store, cells: Sequence[Cell]) -> None:
    """Measure cells one after the other and keep each at once."""
    for place, cell in enumerate(cells):
        print(f"[{place + 1}/{len(cells)}] {cell.name}: {cell.title}", file=sys.stderr)
        result = bench.measure(cell)
        if result.skipped:
            print(f"  skipped: {result.skipped}", file=sys.stderr)
        store.write(result)


def main() -> int:
    """Measure what is missing, then show everything that is there."""
    parser = arguments()
    args = parser.parse_args()
    scratch, peers = args.scratch.resolve(), args.peers.absolute()
    models = [path.resolve() for path in args.model]
    places = {scratch: "SCRATCH", peers: "PEERS", Path(sys.prefix): "PYTHON", REPOSITORY: "."}
    places |= {path.parent: "MODELS" for path in models}
    served = [Served(NANO, NANO, SMALL), *(Served(path.name, str(path), LARGE) for path in models)]
    store = Store(args.out.resolve(), places)
    every = all_cells(served, args.soak_minutes)
    try:
        threads = thread_count(args.threads)
        cells = chosen_cells(every, args.cells)
    except (Phi4Error, ValueError) as error:
        parser.error(str(error))
    facts = machine(threads)
    other = store.foreign(facts)
    if other is not None:
        parser.error(f"{store.folder}: measured on {other['processor']}; give another --out for this machine")
    left = [cell for cell in cells if args.again or not done(cell, store.read(cell.name))]
    if args.list:
        for cell in cells:
            print(f"{'to do' if cell in left else 'done':6} {cell.name:24} {cell.title}")
        return 0
    command, code = " ".join(sys.argv), 0
    try:
        run(Bench(Environments(peers, threads), scratch, command, KINDS), store, left)
    except KeyboardInterrupt:
        print("stopped; the same command goes on with this cell", file=sys.stderr)
        code = INTERRUPTED
    for path in write_report(store, facts):
        print(path)
    return code


if __name__ == "__main__":
    sys.exit(main())
