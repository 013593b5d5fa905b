"""`phi4 eval`: measure a model on held-out tasks, with the controls that show whether it sees and hears."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from phi4.cli import options
from phi4.cli.console import print_json, print_text, stderr, stdout
from phi4.errors import MissingExtra

if TYPE_CHECKING:
    from phi4.api import Phi4
    from phi4.evals.report import Report
    from phi4.evals.run import Row, Settings
    from phi4.evals.tasks import Task

HELP = "measure a model on held-out tasks, with blind, wrong-medium and adapter-off controls"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument("name", nargs="?", metavar="MODEL", help="the model, as -m (default: nano)")
    parser.add_argument(
        "--tasks",
        metavar="LIST",
        help="names of tasks, with commas (default: all the model has the parts for)",
    )
    parser.add_argument("-n", type=int, default=300, metavar="N", help="samples a task (default: 300)")
    parser.add_argument("--batch", type=int, default=32, metavar="B", help="requests at once (default: 32)")
    parser.add_argument("--no-controls", action="store_true", help="quick look: scores without controls")
    parser.add_argument("--list", action="store_true", help="list the tasks and stop")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write report.json, report.md and report.png here"
    )
    parser.add_argument("--json", action="store_true", help="the report as JSON instead of a table")
    options.add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run the tasks, show the table, write the files."""
    from phi4.evals.report import Report, table, verdict
    from phi4.evals.run import Settings
    from phi4.evals.tasks import TASKS, choose, within

    if args.list:
        for task in TASKS.values():
            print_text(f"{task.name}: {task.title} ({task.metric})")
        return 0
    args.model = args.name or args.model
    tasks = choose(args.tasks.split(",") if args.tasks else None)
    if args.out:
        options.make_folder(args.out)
    settings = Settings(n=args.n, batch=args.batch, controls=not args.no_controls)
    model = options.load_model(args)
    if args.tasks is None:
        tasks = within(tasks, model.info.modalities)
    rows: list[Row] = []

    def finished(row: Row) -> None:
        """Keep what is measured so far: a run that is stopped is not lost."""
        rows.append(row)
        if args.out:
            Report(args.model, tuple(rows), describe_runner(model)).write(args.out / "report.json")
        if not sys.stderr.isatty():
            print(f"{row.task}: {100 * row.score.value:.1f}% in {row.seconds:.0f} s", file=sys.stderr)

    _run_all(model, tasks, settings, finished)
    report = Report(args.model, tuple(rows), describe_runner(model))
    if args.json:
        print_json(report.to_json())
    else:
        stdout().print(table(report))
        print_text(verdict(report))
    if args.out:
        _write(report, args.out)
    return 0


def describe_runner(model: Phi4) -> str:
    """Backend, device, dtype and attention, in words."""
    info = model.info
    return f"{info.name} on {info.device}, {info.dtype}, {info.attention} attention"


def _run_all(model: Phi4, tasks: list[Task], settings: Settings, finished: Callable[[Row], None]) -> None:
    """Run the tasks, with a progress bar on a terminal."""
    from phi4.evals.run import Progress, evaluate

    if not sys.stderr.isatty():
        evaluate(model, tasks, settings, finished=finished)
        return
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Bar(*columns, TimeRemainingColumn(), console=stderr()) as bar:
        line = bar.add_task("starting", total=None)

        def show(now: Progress) -> None:
            bar.update(line, description=f"{now.task}: {now.condition}", completed=now.done, total=now.total)

        evaluate(model, tasks, settings, show, finished)


def _write(report: Report, folder: Path) -> None:
    """Files of the report; a missing matplotlib costs the picture only."""
    from phi4.evals.picture import draw
    from phi4.evals.report import markdown

    report.write(folder / "report.json")
    (folder / "report.md").write_text(markdown(report), encoding="utf-8")
    try:
        draw(report, folder / "report.png")
    except MissingExtra as error:
        stderr().print(f"no picture: {error}", markup=False)
    stderr().print(f"written: {folder}", style="dim", markup=False)
