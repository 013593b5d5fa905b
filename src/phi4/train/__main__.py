"""`python -m phi4.train --recipe nano --out runs/nano`: train, save, resume, export."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext


def arguments() -> argparse.ArgumentParser:
    """The command line of the trainer."""
    parser = argparse.ArgumentParser(
        prog="python -m phi4.train", description="Train a recipe, or go on with a run."
    )
    parser.add_argument("--recipe", default="nano", help="nano, or smoke to try the trainer (default: nano)")
    parser.add_argument("--out", required=True, help="run folder: checkpoints, logs, the exported model")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--workers", type=int, default=1, help="processes that generate data (default: 1)")
    parser.add_argument("--steps", type=int, help="optimiser steps of the whole run")
    parser.add_argument(
        "--minutes", type=float, help="wall time of the whole run; the steps are fitted to it"
    )
    parser.add_argument("--tokenizer", help="tokenizer.json to use instead of training one from the data")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of the trainer (default: all)")
    parser.add_argument("--fresh", action="store_true", help="refuse a folder that already holds a run")
    parser.add_argument("--quiet", action="store_true", help="no progress output")
    parser.add_argument("--profile", action="store_true", help="print where the time went, by operator")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = arguments().parse_args(argv)
    import torch
    from torch.profiler import profile

    from phi4.errors import Phi4Error, TrainingError
    from phi4.train.recipes import RECIPES
    from phi4.train.run import run

    try:
        if options.recipe not in RECIPES:
            raise TrainingError(f"unknown recipe {options.recipe!r}; known: {', '.join(RECIPES)}")
        if options.threads:
            torch.set_num_threads(options.threads)
        with profile() if options.profile else nullcontext() as profiler:
            facts = run(
                RECIPES[options.recipe](options.device),
                options.out,
                device=options.device,
                workers=options.workers,
                resume=not options.fresh,
                steps=options.steps,
                minutes=options.minutes,
                quiet=options.quiet,
                tokenizer_file=options.tokenizer,
            )
    except Phi4Error as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if profiler is not None:
        print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=20), file=sys.stderr)
    print(json.dumps(vars(facts)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
