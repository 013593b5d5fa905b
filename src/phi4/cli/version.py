"""`phi4 version`: versions of the package and of what it stands on, for a bug report."""

from __future__ import annotations

import argparse
import platform
import sys

from phi4.cli.console import print_json, print_text
from phi4.version import __version__

HELP = "print versions, for a bug report"
_PACKAGES = ("torch", "numpy", "tokenizers", "safetensors", "huggingface_hub", "soundfile", "soxr", "pillow")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")


def run(args: argparse.Namespace) -> int:
    """Print the versions."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {"phi4": __version__, "python": sys.version.split()[0]}
    found["platform"] = platform.platform()
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    if args.json:
        print_json(found)
    else:
        for name, value in found.items():
            print_text(f"{name} {value or '(not installed)'}")
    return 0
