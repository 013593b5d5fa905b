"""`phi4 list`: the models on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from phi4.cli.console import print_json, print_text, working
from phi4.cli.show import size

HELP = "list the models on this machine: built in, downloaded, and in folders you name"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="a model, or a folder that holds models")
    parser.add_argument("--json", action="store_true", help="one JSON object a model, one a line")


def run(args: argparse.Namespace) -> int:
    """List them."""
    from phi4.checkpoint.local import models_on_disk

    with working("looking for models"):
        found = models_on_disk([Path(folder) for folder in args.folders])
    if args.json:
        for model in found:
            print_json(model)
        return 0
    rows: list[tuple[Any, ...]] = [("name", "takes", "size", "where")]
    rows += [(model.name, "+".join(model.modalities), size(model.num_bytes), model.place) for model in found]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        print_text("  ".join(cells).rstrip())
    return 0
