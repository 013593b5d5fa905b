"""`phi4 demo`: the model at work on the examples and on a picture drawn at this moment.

Every answer comes from the model. A wrong one is shown as wrong and the exit code stays 0.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from phi4.cli import answers, options
from phi4.cli.console import print_json, printable, stdout
from phi4.cli.evaluate import describe_runner
from phi4.errors import ModelNotFound

if TYPE_CHECKING:
    from phi4.api import Phi4
    from phi4.evals.showcase import Piece
    from phi4.types import Completion, Detail

HELP = "show the model at work on pictures, recordings, a command and a sum"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument(
        "--media", type=Path, metavar="DIR", help="examples (default: examples/media of the checkout)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a piece, one a line")
    options.add_model_options(parser, pictures=True)


def run(args: argparse.Namespace) -> int:
    """Show every piece, then how many were right."""
    from phi4.evals.showcase import fresh_piece, read_examples

    examples = read_examples(args.media or default_media())
    start = time.perf_counter()
    model = options.load_model(args)
    loaded_s = time.perf_counter() - start
    # Not deleted at the end: whoever doubts an answer can look at the picture.
    pieces = [*examples, fresh_piece(Path(mkdtemp(prefix="phi4-demo-")))]
    if not args.json:
        stdout().print(f"{args.model}: {describe_runner(model)}, loaded in {loaded_s:.1f} s", markup=False)
    right = [show(model, piece, number, args.json, args.detail) for number, piece in enumerate(pieces, 1)]
    if not args.json:
        stdout().print(f"\n{sum(right)} of {len(right)} right.", style="bold")
    return 0


def default_media() -> Path:
    """The examples of the checkout: above the working directory, or above this file (editable installs).

    Raises:
        ModelNotFound: There are none.
    """
    from phi4.evals.showcase import find_examples

    found = find_examples(Path.cwd()) or find_examples(Path(__file__).resolve().parent)
    if found is None:
        raise ModelNotFound("no examples/media here; run inside a checkout, or name the folder with --media")
    return found


def show(model: Phi4, piece: Piece, number: int, as_json: bool, detail: Detail | None = None) -> bool:
    """Let the model answer one piece and print it; True when it was right."""
    completion = model.chat(piece.sample.messages, tools=piece.sample.tools, detail=detail)
    outcome = piece.judge(completion)
    if as_json:
        print_json(facts(piece, completion) | {"right": outcome.right, "errors": outcome.errors})
        return outcome.right
    console = stdout()
    console.print(f"\n[bold]{number}. {piece.kind.title}[/]")
    shown = facts(piece, completion)
    lines = [("in", file) for file in shown["files"]]
    lines.append(("asked", shown["asked"] or f"(in the recording: {piece.spoken or 'no text beside it'})"))
    lines += [("offered", shown["tools"])] if shown["tools"] else []
    lines += [("answer", shown["answer"]), ("expected", shown["expected"])]
    for name, value in lines:
        print_field(name, value)
    colour = "green" if outcome.right else "red"
    console.print(f"   verdict   [bold {colour}]{piece.verdict(outcome)}[/]")
    print_field("measured", answers.statistics(completion))
    return outcome.right


def facts(piece: Piece, completion: Completion) -> dict[str, Any]:
    """What went in and what came out, as plain values."""
    from phi4.evals.scorers import calls_as_text
    from phi4.types import TextPart

    parts = [part for message in piece.sample.messages for part in message.parts if message.role == "user"]
    return {
        "title": piece.kind.title,
        "files": [shown_path(file) for file in piece.files],
        "asked": " ".join(part.text for part in parts if isinstance(part, TextPart)),
        "spoken": piece.spoken,
        "tools": ", ".join(tool.name for tool in piece.sample.tools),
        "answer": calls_as_text(completion.tool_calls) or completion.text,
        "expected": piece.sample.expected.shown,
        "adapters": list(completion.adapters),
        "first_token_s": completion.timing.first_token_s,
        "tokens_per_s": answers.tokens_per_second(completion),
    }


def shown_path(file: Path) -> str:
    """Relative to the working directory where it lies below it, else whole."""
    relative = os.path.relpath(file)
    return str(file) if relative.startswith(os.pardir) else relative


def print_field(name: str, text: str) -> None:
    """A named value; further lines of it are indented alike."""
    console = stdout()
    for number, line in enumerate(printable(text).splitlines() or [""]):
        console.print(f"   {name if number == 0 else '':<9} {line}", markup=False, soft_wrap=True)
