"""`phi4 bench`: the limits of this machine and the speeds of a model, as a table and a picture."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from phi4.cli import options
from phi4.cli.console import print_json, print_text, printable, stderr, stdout

HELP = "measure this machine's limits and a model's speeds, one runner or two side by side"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument(
        "--runner",
        type=runners,
        default=(),
        metavar="LIST",
        help="onnx, torch, or both with a comma: measured in turns (default: chosen)",
    )
    parser.add_argument(
        "-p", "--prompts", type=numbers, metavar="LIST", help="tokens of a prompt (default: 128,512,2048)"
    )
    parser.add_argument(
        "-n", "--steps", type=int, metavar="N", help="tokens a sample of an answer takes (default: 16)"
    )
    parser.add_argument(
        "--rows", type=numbers, metavar="LIST", help="sequences that decode together (default: 1,2,4,8)"
    )
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="samples of a cell (default: 5)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write bench.json and bench.svg here")
    parser.add_argument("--json", action="store_true", help="the report as JSON instead of a table")
    options.add_model_options(parser, one_runner=False, answers=False)


def numbers(text: str) -> tuple[int, ...]:
    """Type of an option that lists whole numbers, with commas; whether they can be is judged later."""
    try:
        return tuple(int(name) for name in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give whole numbers, such as 512,2048") from None


def runners(text: str) -> tuple[str, ...]:
    """Type of an option that lists runners, with commas; who they are is judged where they are known."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} names no runner; give onnx, torch or onnx,torch")
    return names


def run(args: argparse.Namespace) -> int:
    """Measure, show, write."""
    from phi4.bench import Settings, draw, run_bench, table

    chosen = {name: getattr(args, name) for name in ("prompts", "steps", "rows")}
    settings = Settings(
        model=args.model,
        runners=args.runner,
        repeats=args.repeats,
        modalities=args.modalities,
        device=args.device,
        dtype=args.dtype,
        attention=args.attention,
        adapter=args.adapter,
        provider=args.provider,
        **{name: value for name, value in chosen.items() if value is not None},
    )
    if args.out:
        options.make_folder(args.out)
    with progress() as told:
        report = run_bench(settings, told)
    if args.json:
        print_json(report.to_json())
    else:
        for name, value in report.machine.items():
            print_text(printable(f"{name}: {value}"))
        for name, value in report.runners.items():
            print_text(printable(f"runner {name}: {value}"))
        stdout().print(table(report))
        for note in report.notes:
            print_text(printable(f"note: {note}"))
    if args.out:
        report.write(args.out / "bench.json")
        draw(report, args.out / "bench.svg")
        stderr().print(f"written: {args.out}", style="dim", markup=False)
    return 0


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error; silent when that is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr()) as bar:
        task = bar.add_task("starting", total=None)

        def told(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        yield told
