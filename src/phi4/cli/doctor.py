"""`phi4 doctor`: what is wrong with machine, installation or model, before bad text shows it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from phi4.cli import options
from phi4.cli.console import print_json, printable, stdout, working

if TYPE_CHECKING:
    from rich.console import Console

    from phi4.diagnose import Finding

COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}
_NAME, _VERDICT = 10, 8

HELP = "name what is wrong with machine, installation and model (exit code 5: the model's files)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument(
        "--quick", action="store_true", help="compare no digests: they read every byte of the weights"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object with all findings")
    options.add_model_options(parser, answers=False)


def run(args: argparse.Namespace) -> int:
    """Examine, show every finding as it comes, and let the gravest decide the exit code."""
    from phi4.diagnose import exit_code, worst

    findings: list[Finding] = []
    console = stdout()
    for found in examined(args):
        findings.append(found)
        if not args.json:
            show(found, console)
    if args.json:
        print_json({"model": args.model, "verdict": worst(findings), "checks": findings})
    else:
        counts = {verdict: sum(found.verdict == verdict for found in findings) for verdict in COLOURS}
        told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
        console.print(f"\n{told}")
    return exit_code(findings)


def examined(args: argparse.Namespace) -> Iterator[Finding]:
    """The findings one by one, with a spinner on a terminal while each is waited for."""
    from phi4.diagnose import Asked, examine

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
    findings = examine(asked)
    while True:
        with working(f"examining {args.model}"):
            found = next(findings, None)
        if found is None:
            return
        yield found


def show(found: Finding, console: Console) -> None:
    """A line: check, verdict, finding, and advice below it."""
    from rich.table import Table
    from rich.text import Text

    text = Text(printable(found.finding))
    if found.advice:
        text.append(printable(f"\n-> {found.advice}"), style="bold")
    line = Table.grid(padding=(0, 1, 0, 0))
    line.add_column(width=_NAME)
    line.add_column(width=_VERDICT)
    line.add_column()
    line.add_row(found.name, Text(found.verdict, style=COLOURS[found.verdict]), text)
    console.print(line)
