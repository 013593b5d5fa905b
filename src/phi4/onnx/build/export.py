"""A checkpoint to an ONNX package: tensor by tensor, without torch, in a folder that can be interrupted.

    export_package(checkpoint, folder, ExportOptions(precision="int4"))
    export_package(checkpoint, folder, ExportOptions(method="gptq"), rows=inputs)

One graph after the other is written; a finished one is recorded with the digest of its files, so an export
that was stopped goes on with the graph it was at. The manifest comes last: until then nobody opens the
folder. The same checkpoint and options give the same bytes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from phi4.checkpoint import Checkpoint
from phi4.checkpoint.manifest import write_manifest
from phi4.configs import Layout, Phi4Config, write_config
from phi4.errors import InvalidArtifact, InvalidRequest
from phi4.onnx.build.genai import write_genai
from phi4.onnx.build.merge import Merged
from phi4.onnx.build.options import CALIBRATED, ExportOptions, Part, exported_config
from phi4.onnx.build.plan import PlannedGraph, plan_graphs
from phi4.onnx.build.quantise import Quantise
from phi4.onnx.build.unfinished import Unfinished, graph_files
from phi4.onnx.calibrate.grams import Grams
from phi4.onnx.calibrate.quantiser import make_quantiser
from phi4.onnx.calibrate.rows import CalibrationRow, digest, make_rows
from phi4.onnx.calibrate.walk import DecoderWeights, Walk
from phi4.onnx.description import DESCRIPTION_NAME, Description, write_description
from phi4.onnx.rotary_order import padded_half
from phi4.onnx.session import choose_session
from phi4.shapes import AnyArray
from phi4.types import ModelInputs

__all__ = ["ExportOptions", "Progress", "export_package"]

CONFIG_NAME = "config.json"
TOKENIZER_FILES = ("tokenizer.json",)
SMALL_BYTES = 1 << 20
"""Room for config, description and manifest."""
Progress = Callable[[int, int], None]
"""Called with (bytes of the source done with, bytes in all); what an earlier run finished counts too."""


def export_package(
    checkpoint: Checkpoint,
    folder: Path,
    options: ExportOptions,
    progress: Progress | None = None,
    rows: Sequence[ModelInputs] = (),
) -> Path:
    """Write a package; goes on with one that was stopped.

    Args:
        checkpoint: An open model directory.
        folder: Made when missing; must be empty or hold an unfinished export of the same.
        options: What to write.
        progress: Told how far it is.
        rows: Prompts to calibrate with, for the methods that need them.

    Raises:
        InvalidRequest: Options that cannot be, rows without use or missing, a folder in use, or a disk too
            full.
        InvalidArtifact: The checkpoint lacks its tokenizer, or holds weights that are not finite.
        CheckpointMismatch: Its tensors do not fit its config.
    """
    folder = Path(folder)
    config = exported_config(checkpoint.config, options)
    _check_source(checkpoint, config, options)
    _check_rows(options, rows)
    state = Unfinished.begin(folder, checkpoint, options, digest(rows) if rows else None)
    graphs = plan_graphs(config, options, _quantiser(checkpoint, config, options, rows))
    done = {graph.name for graph in graphs if state.has(graph.name)}
    _check_room(checkpoint, folder, [graph for graph in graphs if graph.name not in done])
    state.save()
    source = _Source(checkpoint, options.merge_adapter, graphs, progress)
    for graph in graphs:
        if graph.name in done:
            source.skip(graph)
        else:
            state.finished(graph.name, graph.build(source.read, folder / f"{graph.name}.onnx"))
    _finish(checkpoint, config, options, graphs, state)
    return folder


def _check_source(checkpoint: Checkpoint, config: Phi4Config, options: ExportOptions) -> None:
    """Everything the package is made of is there."""
    adapters = [adapter.name for adapter in config.adapters]
    merged = [] if options.merge_adapter is None else [options.merge_adapter]
    checkpoint.check(config.modalities, [*adapters, *merged])
    for name in TOKENIZER_FILES:
        if not (checkpoint.path / name).is_file():
            raise InvalidArtifact(f"{checkpoint.path / name}: missing; a package needs it")


def _check_rows(options: ExportOptions, rows: Sequence[ModelInputs]) -> None:
    if rows and options.method not in CALIBRATED:
        raise InvalidRequest(
            f"method {options.method!r} has no use for rows to calibrate with; leave them out, or choose "
            f"{' or '.join(CALIBRATED)}"
        )
    if not rows and options.method in CALIBRATED:
        raise InvalidRequest(
            f"method {options.method!r} needs rows to calibrate with; give some (--calibrate), or choose "
            "search"
        )


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


def _check_room(checkpoint: Checkpoint, folder: Path, graphs: Sequence[PlannedGraph]) -> None:
    """Refuse now what would fail after minutes."""
    tokenizer = sum((checkpoint.path / name).stat().st_size for name in TOKENIZER_FILES)
    needed = sum(graph.room_bytes for graph in graphs) + tokenizer + SMALL_BYTES
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise InvalidRequest(
            f"{folder}: the package takes up to {needed} bytes, {free} are free there; free some space, "
            "choose another disk, or a precision of fewer bits"
        )


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
        precision={part: options.of(part).kind for part in parts},
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
    )
    write_description(folder, description)
    files = [file for graph in graphs for file in graph_files(graph.name)]
    files += write_genai(folder)
    write_manifest(folder, [*files, *TOKENIZER_FILES, CONFIG_NAME, DESCRIPTION_NAME])
    state.forget()


class _Source:
    """The checkpoint's tensors, merged where asked, counted as they are read."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        merge_adapter: str | None,
        graphs: Sequence[PlannedGraph],
        progress: Progress | None,
    ) -> None:
        self._checkpoint = checkpoint
        self._merged = Merged(checkpoint, merge_adapter)
        self._progress = progress
        self._total = sum(self._bytes(graph) for graph in graphs)
        self._done = 0
        self._count(0)

    def read(self, name: str) -> AnyArray:
        """One tensor, by its canonical name."""
        array = self._merged.read(name)
        self._count(self._checkpoint.entries[name].nbytes)
        return array

    def skip(self, graph: PlannedGraph) -> None:
        """Count a graph that is there already."""
        self._count(self._bytes(graph))

    def _bytes(self, graph: PlannedGraph) -> int:
        return sum(self._checkpoint.entries[name].nbytes for name in graph.shapes)

    def _count(self, nbytes: int) -> None:
        self._done += nbytes
        if self._progress is not None:
            self._progress(self._done, self._total)
