"""Options of `phi4 export` for better 4-bit weights: what to calibrate with, how, and sensitive layers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from phi4.errors import InvalidRequest

if TYPE_CHECKING:
    from phi4.checkpoint import Checkpoint
    from phi4.onnx.build.options import ExportOptions, Method
    from phi4.types import ModelInputs

# Spelt out for `--help`, which must not wait for numpy; a test holds them equal to the lists in use.
METHODS = ("rtn", "search", "weighted", "gptq")
PRECISIONS = ("int4", "int8", "fp16", "fp32")
WORLD = "world"
WORLD_ROWS = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options, in a group of their own."""
    group = parser.add_argument_group("4-bit weights")
    group.add_argument(
        "--method",
        choices=METHODS,
        help="how they are chosen: rounded to nearest; scales searched; searched with weights by use; "
        "errors cancelled (GPTQ). The last two calibrate (default: gptq with --calibrate, else rtn)",
    )
    group.add_argument(
        "--calibrate",
        metavar="FILE",
        help='what to calibrate with: lines of {"text": ...} or {"messages": [...]}, or the word '
        f"{WORLD} for {WORLD_ROWS} rows of the small world nano is trained on",
    )
    group.add_argument(
        "--sensitive",
        type=float,
        metavar="PERCENT",
        help="measure every layer and give the most sensitive ones 8 bits, until the decoder is so much "
        "larger; needs --calibrate",
    )
    group.add_argument(
        "--layer",
        action="append",
        default=[],
        type=layer_precision,
        metavar="NAME=PRECISION",
        help="another precision for linear layers, e.g. decoder.layers.*.mlp.down_proj=int8; may be repeated",
    )


def layer_precision(text: str) -> tuple[str, str]:
    """("decoder.layers.0.mlp.down_proj", "int8") from the two with "=" between them."""
    name, _, precision = text.rpartition("=")
    if not name or precision not in PRECISIONS:
        raise argparse.ArgumentTypeError(f"{text!r}: give NAME=PRECISION, one of {', '.join(PRECISIONS)}")
    return name, precision


def calibrated(
    args: argparse.Namespace, options: ExportOptions, checkpoint: Checkpoint
) -> tuple[ExportOptions, Sequence[ModelInputs], list[str]]:
    """What these options make of an export.

    Returns:
        The options with method and layers, the rows the export calibrates with, and what to tell the user.

    Raises:
        InvalidRequest: A file that cannot be used, one that nothing uses, or one that is missing.
    """
    from phi4.onnx.build.options import CALIBRATED

    method: Method = args.method or ("gptq" if args.calibrate else "rtn")
    options = replace(options, method=method, layers=dict(args.layer))
    if args.sensitive is not None and args.calibrate is None:
        raise InvalidRequest("--sensitive: measured on texts; name them with --calibrate")
    if args.calibrate is not None and args.sensitive is None and method not in CALIBRATED:
        raise InvalidRequest(f"--calibrate: --method {method} has no use for it; leave one of them out")
    notes: list[str] = []
    rows = () if args.calibrate is None else _rows(args.calibrate, options, checkpoint)
    if args.sensitive is not None:
        from phi4.onnx.building import mixed_layers

        found = mixed_layers(checkpoint, options, rows, args.sensitive)
        # The first that fits counts, so what was asked for by name stands before what was measured.
        options = replace(options, layers={**options.layers, **found, **options.layers})
        notes.append(f"8 bits: {', '.join(found) or 'no layer fits'}")
    return options, rows if method in CALIBRATED else (), notes


def _rows(source: str, options: ExportOptions, checkpoint: Checkpoint) -> Sequence[ModelInputs]:
    from phi4.data.calibration import world_inputs
    from phi4.onnx.build.options import exported_config
    from phi4.onnx.calibrate.texts import read_texts
    from phi4.processing.processor import Processor
    from phi4.processing.tokenizer import Phi4Tokenizer

    processor = Processor(exported_config(checkpoint.config, options), Phi4Tokenizer.load(checkpoint.path))
    return world_inputs(processor, WORLD_ROWS) if source == WORLD else read_texts(Path(source), processor)
