"""A checkpoint to an ONNX package: tensor by tensor, without torch, in a folder that can be interrupted.

    export_package(checkpoint, folder, ExportOptions(precision="int4"))

One graph after the other is written; a finished one is recorded with the digest of its files, so an export
that was stopped goes on with the graph it was at. The manifest comes last: until then nobody opens the
folder. The same checkpoint and options give the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from phi4.checkpoint import Checkpoint, adapters_for
from phi4.checkpoint.inventory import check_parts
from phi4.checkpoint.manifest import sha256_file, write_manifest
from phi4.configs import Layout, Phi4Config, write_config
from phi4.configs.jsonfile import read_json_object
from phi4.errors import InvalidArtifact, InvalidRequest
from phi4.onnx.build.decoder import build_decoder
from phi4.onnx.build.head import build_head
from phi4.onnx.build.linear import Precision
from phi4.onnx.build.merge import Merged
from phi4.onnx.build.speech import build_speech, build_subsampling
from phi4.onnx.build.vision import build_vision
from phi4.onnx.description import Description, EmbeddingLayout, write_description
from phi4.onnx.rotary_order import padded_half
from phi4.shapes import AnyArray
from phi4.types import Modality

PrecisionName = Literal["int4", "int8", "fp16", "fp32"]
PRECISIONS: tuple[PrecisionName, ...] = get_args(PrecisionName)
Part = Literal["decoder", "head", "vision", "speech"]
PARTS: tuple[Part, ...] = get_args(Part)
STATE_NAME = ".export.json"
TOKENIZER_FILES = ("tokenizer.json",)
DEFAULTS: Mapping[PrecisionName, Mapping[Part, PrecisionName]] = {
    "int4": {"decoder": "int4", "head": "int8", "vision": "int8", "speech": "int8"},
    "int8": dict.fromkeys(PARTS, "int8"),
    "fp16": dict.fromkeys(PARTS, "fp16"),
    "fp32": dict.fromkeys(PARTS, "fp32"),
}
"""What a precision means for each part. The head and the encoders stay in 8 bits under "int4": there a few
wrong steps cost more than the bytes they save."""
Progress = Callable[[int, int], None]
"""Called with (bytes of the source read, bytes to read in all)."""


@dataclass(frozen=True)
class ExportOptions:
    """What to export and how.

    Attributes:
        precision: Of everything, see `DEFAULTS`.
        parts: Precision of single parts, where it differs.
        modalities: What the package can do; None = all the checkpoint can.
        merge_adapter: Adapter to add to the decoder's weights for good; it then costs nothing and cannot be
            switched off, and no other is exported.
        fast: Also write the decoder's second form, int8 per channel, for prompts.
        user_slot: Leave a slot for an adapter of the user's own.
        block_size: Weights that share a scale; shorter = more exact and larger.
    """

    precision: PrecisionName = "int4"
    parts: Mapping[Part, PrecisionName] = field(default_factory=dict)
    modalities: tuple[Modality, ...] | None = None
    merge_adapter: str | None = None
    fast: bool = False
    user_slot: bool = True
    block_size: int = 128

    def of(self, part: Part) -> Precision:
        """Precision of a part."""
        return Precision(self.parts.get(part, DEFAULTS[self.precision][part]), self.block_size)


def export_package(
    checkpoint: Checkpoint, folder: Path, options: ExportOptions, progress: Progress | None = None
) -> Path:
    """Write a package; goes on with one that was stopped.

    Args:
        checkpoint: An open model directory.
        folder: Made when missing; must be empty or hold an unfinished export of the same.
        options: What to write.
        progress: Told how far it is.

    Raises:
        InvalidRequest: Options that cannot be, or a folder in use.
        InvalidArtifact: The checkpoint lacks its tokenizer.
    """
    config = _exported(checkpoint.config, options)
    _check(options)
    folder = Path(folder)
    state = _State.begin(folder, checkpoint, options)
    source = _Source(checkpoint, options, config, progress)
    layout = _write_graphs(config, options, folder, state, source)
    for name in TOKENIZER_FILES:
        if not (checkpoint.path / name).is_file():
            raise InvalidArtifact(f"{checkpoint.path / name}: missing; a package needs it")
        shutil.copyfile(checkpoint.path / name, folder / name)
    stored: Layout = "original" if config.layout == "hf" else config.layout
    text = json.dumps(write_config(config, stored), indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    write_description(folder, _description(config, options, layout))
    write_manifest(folder)
    (folder / STATE_NAME).unlink()
    return folder


def _check(options: ExportOptions) -> None:
    names = (options.precision, *options.parts.values())
    for name in names:
        if name not in PRECISIONS:
            raise InvalidRequest(f"precision {name!r}: choose one of {', '.join(PRECISIONS)}")
    for part in options.parts:
        if part not in PARTS:
            raise InvalidRequest(f"precision of {part!r}: the parts are {', '.join(PARTS)}")
    block = options.block_size
    if not 16 <= block <= 256 or block & (block - 1):
        raise InvalidRequest(f"block size {block}: must be a power of two from 16 to 256")


def _exported(config: Phi4Config, options: ExportOptions) -> Phi4Config:
    """The model of the package: the parts and adapters asked for."""
    parts = check_parts(config, options.modalities)
    names = adapters_for(config, parts)
    if options.merge_adapter is not None:
        if options.merge_adapter not in names:
            have = ", ".join(names) or "none"
            raise InvalidRequest(f"merge adapter {options.merge_adapter!r}: this model has {have}")
        names = ()
    return replace(
        config,
        vision=config.vision if "vision" in parts else None,
        speech=config.speech if "speech" in parts else None,
        adapters=tuple(config.adapter(name) for name in names),
    )


def _write_graphs(
    config: Phi4Config, options: ExportOptions, folder: Path, state: _State, source: _Source
) -> EmbeddingLayout:
    """Every graph that is not there yet; returns where the embedding table stands."""
    width = config.decoder.hidden_size

    def graph(name: str, build: Callable[[Path], EmbeddingLayout | None]) -> None:
        if not state.has(name):
            state.finished(name, build(folder / f"{name}.onnx"))

    def decoder(precision: Precision) -> Callable[[Path], None]:
        return lambda path: build_decoder(
            config, source.read, path, lambda name: precision, options.user_slot
        )

    graph("decoder", decoder(options.of("decoder")))
    if options.fast:
        graph("prefill", decoder(Precision("rows8", options.block_size)))
    graph("head", lambda path: build_head(config, source.read, path, options.of("head")))
    vision, speech = config.vision, config.speech
    if vision is not None:
        graph("vision", lambda path: build_vision(vision, width, source.read, path, options.of("vision")))
    if speech is not None:
        graph("subsampling", lambda path: build_subsampling(speech, source.read, path, options.of("speech")))
        graph("speech", lambda path: build_speech(speech, width, source.read, path, options.of("speech")))
    return state.embedding


def _description(config: Phi4Config, options: ExportOptions, layout: EmbeddingLayout) -> Description:
    parts: tuple[Part, ...] = (
        "decoder",
        "head",
        *(p for p in ("vision", "speech") if p in config.modalities),
    )
    return Description(
        parts=config.modalities,
        precision={part: options.of(part).kind for part in parts},
        adapters=tuple(adapter.name for adapter in config.adapters),
        user_slot=options.user_slot,
        prefill=options.fast,
        rotary_half=padded_half(config.decoder),
        embedding=layout,
    )


class _Source:
    """The checkpoint's tensors, merged where asked, counted as they are read."""

    def __init__(
        self, checkpoint: Checkpoint, options: ExportOptions, config: Phi4Config, progress: Progress | None
    ) -> None:
        self._checkpoint = checkpoint
        self._merged = Merged(checkpoint, options.merge_adapter)
        self._progress = progress
        adapters = [adapter.name for adapter in config.adapters]
        text = checkpoint.nbytes(("text",), adapters)
        self._total = checkpoint.nbytes(config.modalities, adapters) + (text if options.fast else 0)
        self._done = 0

    def read(self, name: str) -> AnyArray:
        """One tensor, by its canonical name."""
        array = self._merged.read(name)
        self._done += self._checkpoint.entries[name].nbytes
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)
        return array


@dataclass
class _State:
    """What an export has finished, in a hidden file of the folder."""

    folder: Path
    identity: dict[str, Any]
    graphs: dict[str, dict[str, str]]
    layout: dict[str, Any] | None

    @classmethod
    def begin(cls, folder: Path, checkpoint: Checkpoint, options: ExportOptions) -> _State:
        """Start, or go on where an export of the same stopped."""
        identity = {
            "source": _fingerprint(checkpoint),
            "options": json.loads(json.dumps(dataclasses.asdict(options))),
        }
        folder.mkdir(parents=True, exist_ok=True)
        where = folder / STATE_NAME
        if where.is_file():
            raw = read_json_object(where)
            if raw.get("identity") == identity:
                return cls(folder, identity, raw.get("graphs", {}), raw.get("layout"))
            raise InvalidRequest(
                f"{folder}: holds an unfinished export of another model or with other options; "
                "delete the folder or choose another"
            )
        if any(folder.iterdir()):
            raise InvalidRequest(f"{folder}: is not empty; delete it or choose another folder")
        state = cls(folder, identity, {}, None)
        state._save()
        return state

    @property
    def embedding(self) -> EmbeddingLayout:
        """Where the head's graph put the table."""
        assert self.layout is not None, "the head is written before it is described"
        return EmbeddingLayout(**self.layout)

    def has(self, name: str) -> bool:
        """Whether a graph is finished and its files are as they were then."""
        stated = self.graphs.get(name)
        return stated is not None and all(
            (self.folder / file).is_file() and sha256_file(self.folder / file) == digest
            for file, digest in stated.items()
        )

    def finished(self, name: str, layout: EmbeddingLayout | None) -> None:
        """Record a graph."""
        files = (f"{name}.onnx", f"{name}.onnx.data")
        self.graphs[name] = {file: sha256_file(self.folder / file) for file in files}
        if layout is not None:
            self.layout = dataclasses.asdict(layout)
        self._save()

    def _save(self) -> None:
        raw = {"identity": self.identity, "graphs": self.graphs, "layout": self.layout}
        part = self.folder / f"{STATE_NAME}.part"
        part.write_text(json.dumps(raw), encoding="utf-8")
        part.replace(self.folder / STATE_NAME)


def _fingerprint(checkpoint: Checkpoint) -> dict[str, list[int]]:
    """Files of a checkpoint with size and time of change: enough to notice that it is another one."""
    files = sorted({entry.file for entry in checkpoint.entries.values()})
    found = ((file, file.stat()) for file in files)
    return {str(file): [stat.st_size, stat.st_mtime_ns] for file, stat in found}
