"""`phi4 export`: a checkpoint as an ONNX package for small devices, or as GGUF for llama.cpp. No torch."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from phi4.cli import calibration
from phi4.cli.calibration import PRECISIONS
from phi4.cli.console import print_json, print_text, stderr
from phi4.cli.options import modalities
from phi4.errors import InvalidRequest, ModelNotFound

if TYPE_CHECKING:
    from phi4.checkpoint import Checkpoint
    from phi4.types import Modality

# Spelt out for `--help`, which must not wait for numpy; a test holds them equal to the lists in use.
PARTS = ("decoder", "head", "vision", "speech")
CACHES = ("fp32", "fp16")
GGUF_DTYPES = ("float16", "float32", "bfloat16")

HELP = "write a model as an ONNX package (int4, int8, fp16, fp32) or as GGUF"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument("model", help="nano, a directory with safetensors weights, or a hub id")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="PATH", help="folder of the package, or the GGUF file"
    )
    parser.add_argument("--format", choices=("onnx", "gguf"), default="onnx", help="default: onnx")
    parser.add_argument(
        "--modalities",
        type=modalities,
        metavar="LIST",
        help="parts to export, e.g. text,speech (default: all)",
    )
    onnx = parser.add_argument_group("onnx")
    onnx.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="int4",
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
    onnx.add_argument(
        "--block-size", type=int, default=128, metavar="N", help="weights that share a scale (default: 128)"
    )
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
        default="fp32",
        help="keys and values while it answers; fp16 halves their memory (default: fp32)",
    )
    onnx.add_argument(
        "--no-user-slot", action="store_true", help="no slot for an adapter of your own (--adapter)"
    )
    calibration.add_arguments(parser)
    gguf = parser.add_argument_group("gguf")
    gguf.add_argument(
        "--dtype", choices=GGUF_DTYPES, default="float16", help="of the weights (default: float16)"
    )
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

    if (args.format == "gguf") != (args.out.suffix == ".gguf"):
        is_gguf = "a GGUF file is called something.gguf, and written with --format gguf"
        raise InvalidRequest(f"--out {args.out}, --format {args.format}: {is_gguf}")
    parts: Sequence[Modality] | None = ("text",) if args.format == "gguf" else args.modalities
    path = resolve_model(args.model, parts)
    if is_package(path):
        raise InvalidRequest(f"{path}: an ONNX package; export from the safetensors model it was made of")
    if not (path / "tokenizer.json").is_file():
        raise ModelNotFound(f"{path / 'tokenizer.json'}: missing; a model is exported with its tokenizer")
    checkpoint = open_checkpoint(path, parts)
    started = time.monotonic()
    with progress(f"exporting {args.model}") as told:
        written, notes = (_gguf if args.format == "gguf" else _onnx)(args, checkpoint, told)
    seconds = time.monotonic() - started
    nbytes = sum(file.stat().st_size for file in ([written] if written.is_file() else written.iterdir()))
    if args.json:
        print_json({"out": written, "bytes": nbytes, "seconds": round(seconds, 2), "notes": notes})
        return 0
    print_text(f"{written}: {nbytes / 1e6:,.1f} MB in {seconds:.1f} s")
    for note in notes:
        print_text(note)
    return 0


def _onnx(
    args: argparse.Namespace, checkpoint: Checkpoint, told: Callable[[int, int], None]
) -> tuple[Path, list[str]]:
    from phi4.onnx.building import ExportOptions, export_package

    options = ExportOptions(
        precision=args.precision,
        parts=dict(args.part),
        modalities=args.modalities,
        merge_adapter=args.merge_adapter,
        fast=args.fast,
        user_slot=not args.no_user_slot,
        block_size=args.block_size,
        context=args.context,
        cache=args.kv,
    )
    options, rows, notes = calibration.calibrated(args, options, checkpoint)
    folder = export_package(checkpoint, args.out, options, told, rows)
    return folder, [f'try it: phi4 ask -m {folder} "Hello"', *notes]


def _gguf(
    args: argparse.Namespace, checkpoint: Checkpoint, told: Callable[[int, int], None]
) -> tuple[Path, list[str]]:
    from phi4.gguf import left_out, write_gguf

    write_gguf(checkpoint, checkpoint.path, args.out, args.dtype, told)
    notes = [f"left out, GGUF holds the text model alone: {name}" for name in left_out(checkpoint.config)]
    return args.out, notes


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with time left on standard error; silent when that is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr()) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
