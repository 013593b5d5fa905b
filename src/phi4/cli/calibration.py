"""Options of `phi4 export` for better 4-bit weights: what to calibrate with, how, and sensitive layers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
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


def check(args: argparse.Namespace) -> None:
    """Refuse what does not go together, before a model is looked at.

    Raises:
        InvalidRequest: Rows that nothing uses, or that are missing.
    """
    from phi4.onnx.build.options import CALIBRATED

    if args.sensitive is not None and args.calibrate is None:
        raise InvalidRequest("--sensitive: measured on texts; name them with --calibrate")
    if args.calibrate is not None and args.sensitive is None and args.method not in (None, *CALIBRATED):
        raise InvalidRequest(f"--calibrate: --method {args.method} has no use for it; leave one of them out")


def method(args: argparse.Namespace) -> Method:
    """How 4-bit weights are chosen."""
    chosen: Method = args.method or ("gptq" if args.calibrate else "rtn")
    return chosen


def rows(source: str | None, options: ExportOptions, checkpoint: Checkpoint) -> Sequence[ModelInputs]:
    """What `--calibrate` names, as the model reads it; none without it.

    Raises:
        InvalidRequest: A file that cannot be used.
        MissingExtra: The small world needs a voice or fonts that are not there.
    """
    if source is None:
        return ()
    from phi4.data.calibration import world_inputs
    from phi4.onnx.build.options import exported_config
    from phi4.onnx.calibrate.texts import read_texts
    from phi4.processing.processor import Processor
    from phi4.processing.tokenizer import Phi4Tokenizer

    processor = Processor(exported_config(checkpoint.config, options), Phi4Tokenizer.load(checkpoint.path))
    return world_inputs(processor, WORLD_ROWS) if source == WORLD else read_texts(Path(source), processor)


def found_layers(folder: Path, named: Sequence[tuple[str, str]]) -> list[str]:
    """Layers of a package that have 8 bits because they were measured, not because they were named."""
    from phi4.onnx.package.description import read_description

    return [layer for layer in read_description(folder).layers if layer not in dict(named)]
