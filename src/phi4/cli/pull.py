"""`phi4 pull`: download a model, or what is missing of it, and say where it is."""

from __future__ import annotations

import argparse

from phi4.cli import options
from phi4.cli.console import print_json, print_text, working

HELP = "download a model from the hub into the local cache"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument("model", help="a hub id, perhaps with @revision")
    parser.add_argument(
        "--modalities",
        type=options.modalities,
        metavar="LIST",
        help="only what these parts need, e.g. text,speech (default: all the model has)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Download it; what is in the cache already is not fetched again."""
    from phi4.checkpoint import resolve_model

    with working(f"fetching {args.model}"):
        folder = resolve_model(args.model, args.modalities)
    if args.json:
        print_json({"model": args.model, "path": folder})
    else:
        print_text(str(folder))
    return 0
