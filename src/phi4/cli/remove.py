"""`phi4 rm`: remove downloaded models from the local cache."""

from __future__ import annotations

import argparse
import sys

from phi4.cli.console import print_error, print_json, print_text
from phi4.cli.show import size
from phi4.errors import InvalidRequest, Phi4Error

HELP = "remove downloaded models from the local cache"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a hub id; with @revision only that one")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("--json", action="store_true", help="one JSON object a model, one a line")


def run(args: argparse.Namespace) -> int:
    """Remove each; one that fails is reported, the others still go, the first exit code stays."""
    from phi4.checkpoint.local import remove_cached

    if not args.yes and not _agreed(args.models):
        return 0
    code = 0
    for model in args.models:
        try:
            freed = remove_cached(model)
        except Phi4Error as error:
            print_error(error, as_json=args.json)
            code = code or error.exit_code
            continue
        if args.json:
            print_json({"model": model, "freed_bytes": freed})
        else:
            print_text(f"removed {model}, {size(freed)} freed")
    return code


def _agreed(models: list[str]) -> bool:
    """Whether somebody at a terminal agrees; nobody can where there is none.

    Raises:
        InvalidRequest: Standard input is no terminal.
    """
    if not sys.stdin.isatty():
        raise InvalidRequest("nobody is there to be asked; give --yes to remove models without a question")
    answer = input(f"remove {', '.join(models)} from the cache? [y/N] ")
    return answer.strip().lower() in ("y", "yes")
