"""A checkpoint to an ONNX package: tensor by tensor, without torch, in a folder that can be interrupted.

    export_package(checkpoint, folder, ExportOptions(precision="int4"))
    export_package(checkpoint, folder, ExportOptions(method="gptq"), rows=inputs)

One graph after the other is written; a finished one is recorded with the digest of its files, so an export
that was stopped goes on with the graph it was at. The manifest comes last: until then nobody opens the
folder. The same checkpoint and options give the same bytes, and where they are already nothing is written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from phi4.checkpoint import Checkpoint
from phi4.checkpoint.manifest import verify_manifest, write_manifest
from phi4.checkpoint.room import check_room
from phi4.configs import Layout, Phi4Config, write_config
from phi4.errors import InvalidArtifact, InvalidRequest
from phi4.onnx.build.genai import write_genai
from phi4.onnx.build.options import CALIBRATED, ExportOptions, Part, exported_config
from phi4.onnx.build.plain import write_plain
from phi4.onnx.build.plan import PlannedGraph, plan_graphs
from phi4.onnx.build.replacing import begin_beside, beside, check_replaceable, replace_package
from phi4.onnx.build.source import Progress, Source
from phi4.onnx.build.unfinished import (
    STATE_NAME,
    TOKENIZER_FILES,
    Unfinished,
    check_vacant,
    graph_files,
    identity_of,
)
from phi4.onnx.calibrate.grams import Grams
from phi4.onnx.calibrate.measuring import measure_in_turns, mixed_layers
from phi4.onnx.calibrate.mixed import decoder_bytes
from phi4.onnx.calibrate.quantiser import make_quantiser
from phi4.onnx.calibrate.rows import CalibrationRow, digest, make_rows
from phi4.onnx.calibrate.walk import DecoderWeights, Walk
from phi4.onnx.package.description import DESCRIPTION_NAME, Description, write_description
from phi4.onnx.package.parts import decoder_forms, has_plain, stated_precision
from phi4.onnx.package.quantise import Quantise
from phi4.onnx.package.rotary_order import padded_half
from phi4.onnx.serving.session import choose_session
from phi4.processing.chat_template import source_template
from phi4.types import ModelInputs

__all__ = ["ExportOptions", "Progress", "already_exported", "check_export", "export_package"]

CONFIG_NAME = "config.json"
SMALL_BYTES = 1 << 20
"""Room for config, description and manifest."""


def check_export(
    checkpoint: Checkpoint, folder: Path, options: ExportOptions, *, force: bool = False
) -> None:
    """Refuse what `export_package` would refuse, before rows to calibrate with are made.

    Raises:
        InvalidRequest: Options that cannot be, a folder in use, or a disk too full.
        InvalidArtifact: The checkpoint lacks its tokenizer.
        CheckpointMismatch: Its tensors do not fit its config.
    """
    config = exported_config(checkpoint.config, options)
    _check_source(checkpoint, config, options)
    if force:
        check_replaceable(folder)
    elif (folder / STATE_NAME).is_file():
        return  # whether it is of the same export, and needs room still, is seen with the rows
    else:
        check_vacant(folder)
    _check_room(checkpoint, folder, config, options, plan_graphs(config, options))


def already_exported(
    checkpoint: Checkpoint, folder: Path, options: ExportOptions, rows: Sequence[ModelInputs] = ()
) -> bool:
    """Whether a folder holds the whole package these would make; contents are not looked at."""
    if not (folder / STATE_NAME).is_file():
        return False
    return Unfinished.begin(folder, _identity(checkpoint, options, rows)).whole


def export_package(
    checkpoint: Checkpoint,
    folder: Path,
    options: ExportOptions,
    progress: Progress | None = None,
    rows: Sequence[ModelInputs] = (),
    *,
    force: bool = False,
    measuring: Progress | None = None,
) -> Path:
    """Write a package; goes on with one that was stopped, and leaves one that is there already.

    Args:
        checkpoint: An open model directory.
        folder: Made when missing; must be empty or hold an export of the same, finished or not.
        options: What to write.
        progress: Told how far it is.
        rows: Prompts to calibrate with or to measure layers on, where the options need them.
        force: Replace a package in the folder, whatever it is of: the new one is written beside it first.
        measuring: Told how far the measuring of sensitive layers is, which comes before all else.

    Raises:
        InvalidRequest: Options that cannot be, rows without use or missing, a folder in use, or a disk too
            full.
        InvalidArtifact: The checkpoint lacks its tokenizer, or holds weights that are not finite; or the
            package that is there already was damaged since.
        CheckpointMismatch: Its tensors do not fit its config.
    """
    folder = Path(folder)
    config = exported_config(checkpoint.config, options)
    _check_source(checkpoint, config, options)
    _check_rows(options, rows)
    identity = _identity(checkpoint, options, rows)
    if force:
        check_replaceable(folder)
        state = begin_beside(beside(folder), identity)
    else:
        state = Unfinished.begin(folder, identity)
    if state.whole:
        _check_whole(folder)
        return folder
    _write(checkpoint, config, options, state, rows, progress, measuring)
    if force:
        replace_package(folder, state.folder)
    return folder


def _write(
    checkpoint: Checkpoint,
    config: Phi4Config,
    options: ExportOptions,
    state: Unfinished,
    rows: Sequence[ModelInputs],
    progress: Progress | None,
    measuring: Progress | None,
) -> None:
    done = {name for name in state.graphs if state.has(name)}
    left = [graph for graph in plan_graphs(config, options) if graph.name not in done]
    _check_room(checkpoint, state.folder, config, options, left)
    state.save()
    if options.sensitive is not None:
        for losses in measure_in_turns(checkpoint, options, rows, state.losses, measuring):
            state.measured(losses)
        # The first that fits counts, so what was asked for by name stands before what was measured.
        found = mixed_layers(config, options, state.losses)
        options = replace(options, layers={**options.layers, **found, **options.layers})
    graphs = plan_graphs(config, options, _quantiser(checkpoint, config, options, rows))
    source = Source(checkpoint, options.merge_adapter, graphs, progress)
    for graph in graphs:
        if graph.name in done:
            source.skip(graph)
        else:
            state.finished(graph.name, graph.build(source.read, state.folder / f"{graph.name}.onnx"))
    _finish(checkpoint, config, options, graphs, state)


def _identity(checkpoint: Checkpoint, options: ExportOptions, rows: Sequence[ModelInputs]) -> dict[str, Any]:
    return identity_of(checkpoint, options, digest(rows) if rows else None)


def _check_whole(folder: Path) -> None:
    try:
        verify_manifest(folder)
    except InvalidArtifact as damage:
        raise InvalidArtifact(f"{damage}; write it anew (--force), or delete the folder") from None


def _check_source(checkpoint: Checkpoint, config: Phi4Config, options: ExportOptions) -> None:
    """Everything the package is made of is there."""
    adapters = [adapter.name for adapter in config.adapters]
    merged = [] if options.merge_adapter is None else [options.merge_adapter]
    checkpoint.check(config.modalities, [*adapters, *merged])
    for name in TOKENIZER_FILES:
        if not (checkpoint.path / name).is_file():
            raise InvalidArtifact(f"{checkpoint.path / name}: missing; a package needs it")


def _check_rows(options: ExportOptions, rows: Sequence[ModelInputs]) -> None:
    if rows and options.method not in CALIBRATED and options.sensitive is None:
        raise InvalidRequest(
            f"method {options.method!r} has no use for rows to calibrate with; leave them out, or choose "
            f"{' or '.join(CALIBRATED)}"
        )
    if not rows and options.method in CALIBRATED:
        raise InvalidRequest(
            f"method {options.method!r} needs rows to calibrate with; give some (--calibrate), or choose "
            "search"
        )
    if not rows and options.sensitive is not None:
        raise InvalidRequest("sensitive layers are measured on rows; give some (--calibrate)")


def _quantiser(
    checkpoint: Checkpoint, config: Phi4Config, options: ExportOptions, inputs: Sequence[ModelInputs]
) -> Quantise:
    """The method asked for; rows are embedded and walked through the decoder when it first needs them."""
    if options.method not in CALIBRATED:
        return make_quantiser(options.method)
    choice = choose_session()
    weights = DecoderWeights(checkpoint, config, options.merge_adapter)
    made: list[CalibrationRow] = []

    def start() -> Walk:
        if not made:
            made.extend(make_rows(checkpoint, config, inputs, choice))
        return Walk(weights, made, choice)

    return make_quantiser(options.method, Grams(start, diagonals=options.method == "weighted"))


def _check_room(
    checkpoint: Checkpoint,
    folder: Path,
    config: Phi4Config,
    options: ExportOptions,
    graphs: Sequence[PlannedGraph],
) -> None:
    """Refuse now what would fail after minutes; layers that will get 8 bits are counted as if found."""
    needed = sum(graph.room_bytes for graph in graphs) + SMALL_BYTES
    needed += sum((checkpoint.path / name).stat().st_size for name in TOKENIZER_FILES)
    if options.sensitive is not None:
        needed += int(decoder_bytes(config, options.block_size) * options.sensitive / 100)
    check_room(folder, needed, "the package")


def _finish(
    checkpoint: Checkpoint,
    config: Phi4Config,
    options: ExportOptions,
    graphs: Sequence[PlannedGraph],
    state: Unfinished,
) -> None:
    """Everything beside the graphs; with the manifest the folder becomes a package."""
    folder = state.folder
    for name in TOKENIZER_FILES:
        shutil.copyfile(checkpoint.path / name, folder / name)
    # Adapters of the HF-native layout would stand in folders of their own.
    stored: Layout = "original" if config.layout == "hf" else config.layout
    text = json.dumps(write_config(config, stored), indent=2) + "\n"
    (folder / CONFIG_NAME).write_text(text, encoding="utf-8", newline="\n")
    parts: list[Part] = ["decoder", "head"]
    parts += [part for part in ("vision", "speech") if part in config.modalities]
    description = Description(
        parts=config.modalities,
        precision={part: stated_precision(options.form_of(part).kind) for part in parts},
        adapters=tuple(adapter.name for adapter in config.adapters),
        user_slot=options.user_slot,
        prefill=options.fast,
        rotary_half=padded_half(config.decoder),
        embedding=state.embedding,
        context=options.context,
        layers=dict(options.layers),
        method=options.method,
        cache=options.cache,
        merged=options.merge_adapter,
        block_size=options.block_size,
        template=source_template(checkpoint.path),
    )
    write_description(folder, description)
    files = [file for graph in graphs for file in graph_files(graph.name)]
    if has_plain(description.user_slot, description.adapters):
        files += write_plain(folder, decoder_forms(description.prefill))
    files += write_genai(folder)
    write_manifest(folder, [*files, *TOKENIZER_FILES, CONFIG_NAME, DESCRIPTION_NAME])
    state.finish()
