"""`phi4 prepare`: graphs of an ONNX package as this machine computes them, in the cache. No torch."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from phi4.cli.console import print_json, print_text
from phi4.cli.export import progress
from phi4.errors import InvalidArtifact, InvalidRequest

if TYPE_CHECKING:
    from phi4.onnx.serving.prepared import Preparation

HELP = "store an ONNX package as this machine computes it, so that it opens sooner and takes less memory"
SMALL_BYTES = 100 << 20
"""Opening a package of so many bytes takes a moment anyway."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument("model", help="a directory with an ONNX package, or nano")
    parser.add_argument("--remove", action="store_true", help="delete what was prepared of it")
    parser.add_argument("--provider", help="cpu, the only one whose graphs can be stored (default)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")


def run(args: argparse.Namespace) -> int:
    """Prepare the package, unless that was done, or remove what was prepared."""
    from phi4.onnx import open_package
    from phi4.onnx.serving.preparing import prepare, remove_prepared

    package = _package(args.model)
    if args.remove:
        removed = remove_prepared(package)
        if args.json:
            print_json({"removed": removed})
        else:
            print_text("\n".join(f"removed {folder}" for folder in removed) or "nothing was prepared of it")
        return 0
    check_provider(args.provider)
    opened = open_package(package)
    found, started = _there(package), time.monotonic()
    if found is not None:
        return _tell(args, found, None)
    with progress() as tell:
        found = prepare(opened, lambda graph, *far: tell(f"preparing {graph}", "MB", 1e6, *far))
    return _tell(args, found, time.monotonic() - started)


def check_provider(asked: str | None) -> None:
    """Refuse another provider than the CPU's.

    Raises:
        InvalidRequest: As said, or the provider is not there at all.
    """
    from phi4.onnx.serving.session import CPU, choose_session

    choice = choose_session(asked)
    if choice.provider != CPU:
        raise InvalidRequest(
            f"provider {choice.device!r}: it arranges weights by itself, so only what the provider cpu "
            "computes with can be stored; leave the option out"
        )


def _package(model: str) -> Path:
    """Folder of the package of a model.

    Raises:
        InvalidRequest: The model has none.
    """
    from phi4.registry import find_form

    _, found = find_form(model, "onnx")
    if not isinstance(found, Path):
        raise InvalidRequest(
            f"{model}: a repository on the hub holds weights, and what is prepared is an ONNX package of "
            "them; make one (phi4 export MODEL --out FOLDER) and prepare that"
        )
    return found


def _there(package: Path) -> Preparation | None:
    """What was prepared already; None also where it is broken."""
    from phi4.onnx.serving.prepared import find_prepared

    try:
        return find_prepared(package)
    except InvalidArtifact:
        return None


def _tell(args: argparse.Namespace, found: Preparation, seconds: float | None) -> int:
    """Say what there is now; no seconds = it was there before."""
    if args.json:
        took = None if seconds is None else round(seconds, 2)
        facts = {"folder": found.folder, "bytes": found.nbytes, "seconds": took}
        print_json(facts | {"already_there": seconds is None})
        return 0
    told = "already prepared" if seconds is None else f"in {seconds:.1f} s"
    print_text(f"{found.folder}: {found.nbytes / 1e6:,.1f} MB {told}")
    if found.nbytes < SMALL_BYTES:
        print_text("a package as small as this opens in a moment anyway, so little is gained")
    return 0
