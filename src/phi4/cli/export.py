"""`phi4 export`: a checkpoint as an ONNX package for small devices, or as GGUF for llama.cpp. No torch."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from phi4.cli import calibration
from phi4.cli.calibration import PRECISIONS
from phi4.cli.console import print_json, print_text, stderr
from phi4.cli.options import add_threads_option, modalities
from phi4.errors import InvalidRequest, ModelNotFound

if TYPE_CHECKING:
    from phi4.checkpoint import Checkpoint
    from phi4.onnx.build.options import ExportOptions
    from phi4.types import Modality

# Spelt out for `--help`, which must not wait for numpy; a test holds them equal to the lists in use.
PARTS = ("decoder", "head", "vision", "speech")
CACHES = ("fp32", "fp16")
GGUF_DTYPES = ("float16", "float32", "bfloat16")
ONNX_ONLY = (
    *("modalities", "precision", "part", "block_size", "fast", "merge_adapter", "context", "kv"),
    *("no_user_slot", "method", "calibrate", "sensitive", "layer", "threads"),
)
GGUF_ONLY = ("dtype",)
Tell = Callable[[str, str, float, int, int], None]
"""Told what is done, the unit it is counted in, how many counts make one, and how far it is: (done, all)."""

HELP = "write a model as an ONNX package (int4, int8, fp16, fp32) or as GGUF"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this verb. Those of one format have no default here, so that it is seen who gave them."""
    parser.add_argument("model", help="nano, a directory with safetensors weights, or a hub id")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="PATH", help="folder of the package, or the GGUF file"
    )
    parser.add_argument("--format", choices=("onnx", "gguf"), default="onnx", help="default: onnx")
    parser.add_argument(
        "--force", action="store_true", help="replace a package or a GGUF file when the new one is whole"
    )
    onnx = parser.add_argument_group("onnx")
    onnx.add_argument(
        "--modalities",
        type=modalities,
        metavar="LIST",
        help="parts to export, e.g. text,speech (default: all)",
    )
    onnx.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="of the weights (default: int4; head and encoders are int8 then)",
    )
    onnx.add_argument(
        "--part",
        action="append",
        default=[],
        type=part_precision,
        metavar="PART=PRECISION",
        help=f"another precision for one of {', '.join(PARTS)}; may be repeated",
    )
    onnx.add_argument("--block-size", type=int, metavar="N", help="weights that share a scale (default: 128)")
    onnx.add_argument(
        "--fast", action="store_true", help="also write the decoder in the form that reads prompts faster"
    )
    onnx.add_argument(
        "--merge-adapter", metavar="NAME", help="add this adapter to the weights for good and drop the others"
    )
    onnx.add_argument(
        "--context", type=int, metavar="N", help="longest sequence served, in tokens (default: the model's)"
    )
    onnx.add_argument(
        "--kv",
        choices=CACHES,
        help="keys and values while it answers; fp16 halves their memory (default: fp32)",
    )
    onnx.add_argument(
        "--no-user-slot", action="store_true", help="no slot for an adapter of your own (--adapter)"
    )
    calibration.add_arguments(parser)
    add_threads_option(onnx, "CPU threads to calibrate with")
    gguf = parser.add_argument_group("gguf")
    gguf.add_argument("--dtype", choices=GGUF_DTYPES, help="of the weights (default: float16)")
    parser.add_argument("--json", action="store_true", help="what was written as one JSON object")


def part_precision(text: str) -> tuple[str, str]:
    """("vision", "fp16") from "vision=fp16"."""
    part, _, precision = text.partition("=")
    if part not in PARTS or precision not in PRECISIONS:
        raise argparse.ArgumentTypeError(
            f"{text!r}: give PART=PRECISION, of {', '.join(PARTS)} and {', '.join(PRECISIONS)}"
        )
    return part, precision


def run(args: argparse.Namespace) -> int:
    """Export and say what was written."""
    from phi4.checkpoint import open_checkpoint, resolve_model
    from phi4.onnx import is_package

    check_format(args)
    parts: Sequence[Modality] | None = ("text",) if args.format == "gguf" else args.modalities
    path = resolve_model(args.model, parts)
    if is_package(path):
        raise InvalidRequest(f"{path}: an ONNX package; export from the safetensors model it was made of")
    if not (path / "tokenizer.json").is_file():
        raise ModelNotFound(f"{path / 'tokenizer.json'}: missing; a model is exported with its tokenizer")
    checkpoint = open_checkpoint(path, parts)
    started = time.monotonic()
    with progress() as tell:
        done = (_gguf if args.format == "gguf" else _onnx)(args, checkpoint, tell)
    seconds = time.monotonic() - started
    files = [done.path] if done.path.is_file() else done.path.iterdir()
    nbytes = sum(file.stat().st_size for file in files)
    if args.json:
        facts = {"out": done.path, "bytes": nbytes, "seconds": round(seconds, 2)}
        print_json(facts | {"already_there": done.already_there, "notes": done.notes})
        return 0
    told = "already there, digests compared" if done.already_there else f"in {seconds:.1f} s"
    print_text(f"{done.path}: {nbytes / 1e6:,.1f} MB {told}")
    for note in done.notes:
        print_text(note)
    return 0


@dataclass(frozen=True)
class Done:
    """What came of an export: its place, what to tell the user, and whether there was nothing to do."""

    path: Path
    notes: list[str]
    already_there: bool = False


def check_format(args: argparse.Namespace) -> None:
    """Refuse a name of the other format, and options that only the other format has.

    Raises:
        InvalidRequest: As said; names the options.
    """
    if (args.format == "gguf") != (args.out.suffix == ".gguf"):
        is_gguf = "a GGUF file is called something.gguf, and written with --format gguf"
        raise InvalidRequest(f"--out {args.out}, --format {args.format}: {is_gguf}")
    other, names = ("gguf", GGUF_ONLY) if args.format == "onnx" else ("onnx", ONNX_ONLY)
    values = {name: getattr(args, name) for name in names}
    given = [name for name, value in values.items() if not (value is None or value is False or value == [])]
    if given:
        spelt = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InvalidRequest(f"{spelt}: for --format {other} alone; leave it out, or choose that format")


def export_options(args: argparse.Namespace) -> ExportOptions:
    """What the options of the format onnx ask for."""
    from phi4.onnx.build.options import ExportOptions

    named = {
        "precision": args.precision,
        "modalities": args.modalities,
        "merge_adapter": args.merge_adapter,
        "block_size": args.block_size,
        "context": args.context,
        "cache": args.kv,
        "sensitive": args.sensitive,
    }
    return ExportOptions(
        parts=dict(args.part),
        fast=args.fast,
        user_slot=not args.no_user_slot,
        method=calibration.method(args),
        layers=dict(args.layer),
        **{name: value for name, value in named.items() if value is not None},
    )


def _onnx(args: argparse.Namespace, checkpoint: Checkpoint, tell: Tell) -> Done:
    from phi4.onnx.building import already_exported, check_export, export_package

    calibration.check(args)
    options = export_options(args)
    check_export(checkpoint, args.out, options, force=args.force)
    rows = calibration.rows(args.calibrate, options, checkpoint)
    there = not args.force and already_exported(checkpoint, args.out, options, rows)
    folder = export_package(
        checkpoint,
        args.out,
        options,
        partial(tell, f"exporting {args.model}", "MB", 1e6),
        rows,
        force=args.force,
        measuring=partial(tell, "measuring layers", "passes", 1),
    )
    notes = [f'try it: phi4 ask -m {folder} "Hello"']
    if args.sensitive is not None:
        found = calibration.found_layers(folder, args.layer)
        notes.append(f"8 bits: {', '.join(found) or 'no layer fits'}")
    return Done(folder, notes, there)


def _gguf(args: argparse.Namespace, checkpoint: Checkpoint, tell: Tell) -> Done:
    from phi4.gguf import GgufDtype, left_out, write_gguf

    dtype: GgufDtype = args.dtype or "float16"
    told = partial(tell, f"exporting {args.model}", "MB", 1e6)
    write_gguf(checkpoint, checkpoint.path, args.out, dtype, told, force=args.force)
    notes = [f"left out, GGUF holds the text model alone: {name}" for name in left_out(checkpoint.config)]
    return Done(args.out, notes)


@contextmanager
def progress() -> Iterator[Tell]:
    """A bar with time left for each thing that is told of, on standard error; silent when not a terminal."""
    if not sys.stderr.isatty():
        yield lambda what, unit, scale, done, total: None
        return
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}"))
    with Progress(*columns, TimeRemainingColumn(), console=stderr()) as bar:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, unit: str, scale: float, done: int, total: int) -> None:
            amount = f"{done / scale:,.0f}/{total / scale:,.0f} {unit}"
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total, amount=amount)
            bar.update(tasks[what], completed=done, total=total, amount=amount)

        yield tell
