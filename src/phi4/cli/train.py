"""`phi4 train`: run a recipe, or go on with a run that was stopped."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from phi4.cli.console import print_json, print_text
from phi4.cli.options import add_threads_option, make_folder
from phi4.errors import InvalidRequest, MissingExtra

STOPPED = 130
"""Exit code of a run that was asked to stop; its state is saved."""

HELP = "train a recipe into a model; a stopped run goes on where it was"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument(
        "recipe", nargs="?", default="nano", help="nano, or smoke to try the trainer (default: nano)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (default: runs/RECIPE)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes that make data (default: 1)"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="optimiser steps of the whole run")
    parser.add_argument(
        "--minutes", type=float, metavar="M", help="wall time of the whole run; the steps are fitted to it"
    )
    parser.add_argument(
        "--tokenizer", type=Path, metavar="FILE", help="tokenizer.json to use instead of training one"
    )
    add_threads_option(parser)
    parser.add_argument("--fresh", action="store_true", help="refuse a folder that already holds a run")
    parser.add_argument("--quiet", action="store_true", help="no progress output")
    parser.add_argument("--profile", action="store_true", help="print where the time went, by operator")
    parser.add_argument(
        "--json", action="store_true", help="what came out as one JSON object; implies --quiet"
    )


def run(args: argparse.Namespace) -> int:
    """Train; the exported model stands in DIR/model."""
    missing = [name for name in ("torch", "safetensors") if find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f"training needs {' and '.join(missing)}: from the checkout, pip install '.[torch,train]'"
        )
    from phi4.train.recipes import RECIPES
    from phi4.train.run import run as train

    if args.recipe not in RECIPES:
        raise InvalidRequest(f"unknown recipe {args.recipe!r}; known: {', '.join(RECIPES)}")
    out = args.out or Path("runs") / args.recipe
    make_folder(out)
    facts = train(
        RECIPES[args.recipe](args.device),
        out,
        device=args.device,
        workers=args.workers,
        resume=not args.fresh,
        steps=args.steps,
        minutes=args.minutes,
        quiet=args.quiet or args.json,
        tokenizer_file=args.tokenizer,
        profile=args.profile,
    )
    if args.json:
        print_json({"out": out} | vars(facts))
    else:
        print_text(f"{out}: " + ", ".join(f"{name} {value}" for name, value in vars(facts).items()))
    return 0 if facts.finished else STOPPED
