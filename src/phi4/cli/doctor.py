"""`phi4 doctor`: what is wrong with machine, installation or model, before bad text shows it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from phi4.cli import options
from phi4.cli.console import print_json, printable, stdout, working

if TYPE_CHECKING:
    from phi4.diagnose import Finding

COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}

HELP = "name what is wrong with machine, installation and model (exit code 5: the model's files)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument(
        "--quick", action="store_true", help="compare no digests: they read every byte of the weights"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object with all findings")
    options.add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Examine, show every finding, and let the gravest decide the exit code."""
    with working(f"examining {args.model}"):
        from phi4.diagnose import Asked, examine, exit_code, worst

        asked = Asked(
            model=args.model,
            runner=args.runner,
            device=args.device,
            dtype=args.dtype,
            attention=args.attention,
            modalities=args.modalities,
            adapter=args.adapter,
            provider=args.provider,
            quick=args.quick,
        )
        findings = list(examine(asked))
    if args.json:
        print_json({"model": args.model, "verdict": worst(findings), "checks": findings})
    else:
        show(findings)
    return exit_code(findings)


def show(findings: list[Finding]) -> None:
    """A line a check, with advice below it, then how many were not ok."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table("check", "verdict", "finding", box=SIMPLE_HEAD, pad_edge=False)
    for found in findings:
        text = Text(printable(found.finding))
        if found.advice:
            text.append(printable(f"\n-> {found.advice}"), style="bold")
        table.add_row(found.name, Text(found.verdict, style=COLOURS[found.verdict]), text)
    console = stdout()
    console.print(table)
    counts = {verdict: sum(found.verdict == verdict for found in findings) for verdict in COLOURS}
    console.print(", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
