"""A package on disk: which graphs belong to a model, and whether its files can be trusted.

`open_package` reads `config.json`, `phi4_onnx.json` and `manifest.json` and checks, before ONNX Runtime
opens anything: every needed file is there, lies in the folder and has the size the manifest states, and
every graph takes its weights from its own data file beside it. Digests are compared on request
(`OnnxPackage.verify`), since reading gigabytes takes longer than answering a question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from phi4.checkpoint.inventory import check_parts
from phi4.checkpoint.manifest import MANIFEST_NAME, verify_manifest
from phi4.checkpoint.shards import contained
from phi4.configs import Phi4Config, read_config
from phi4.configs.jsonfile import read_json_object
from phi4.errors import InvalidArtifact
from phi4.onnx.description import (
    CACHE_BYTES,
    DESCRIPTION_NAME,
    CacheKind,
    Description,
    EmbeddingLayout,
    read_description,
    refusal,
)
from phi4.onnx.external_data import external_files
from phi4.onnx.rotary_order import padded_half
from phi4.types import Modality

MAX_GRAPH_BYTES = 256 << 20
"""A graph holds no weights; that of the released model has a few MB."""
PART_GRAPHS: dict[Modality, tuple[str, ...]] = {
    "text": ("decoder", "head"),
    "vision": ("vision",),
    "speech": ("subsampling", "speech"),
}


@dataclass(frozen=True)
class OnnxPackage:
    """A package whose files have been checked.

    Attributes:
        path: The folder.
        config: The model, with the parts and adapters the graphs have and no others.
        precision: "decoder", "head" and the encoders it has -> how their weights are stored.
        user_slot: Whether the decoder takes an adapter of the user's own.
        prefill: Whether there is a second form of the decoder for prompts.
        embedding: Where the embedding table stands.
        parts: Modalities whose files were checked; others may not be used.
        context: Longest sequence it serves, in tokens; None = what the model can.
        cache: How keys and values are kept.
        merged_adapter: The adapter that is part of the decoder's weights; None = none was merged.
    """

    path: Path
    config: Phi4Config
    precision: Mapping[str, str]
    user_slot: bool
    prefill: bool
    embedding: EmbeddingLayout
    parts: tuple[Modality, ...]
    context: int | None = None
    cache: CacheKind = "fp32"
    merged_adapter: str | None = None

    @property
    def max_context_tokens(self) -> int:
        """Longest sequence it serves. The config keeps the model's own: LongRoPE's factors depend on it."""
        return self.context or self.config.decoder.max_position_embeddings

    @property
    def adapters(self) -> tuple[str, ...]:
        """Adapters inside the decoder's graph."""
        return tuple(adapter.name for adapter in self.config.adapters)

    @property
    def cache_bytes_per_token(self) -> int:
        """Keys and values of one position."""
        decoder = self.config.decoder
        return 2 * decoder.num_hidden_layers * decoder.kv_dim * CACHE_BYTES[self.cache]

    @property
    def rotary_half(self) -> int:
        """Width of the rotary tables."""
        return padded_half(self.config.decoder)

    @property
    def graphs(self) -> tuple[str, ...]:
        """Graphs of its parts."""
        names = [name for part in self.parts for name in PART_GRAPHS[part]]
        return (*names, "prefill") if self.prefill else tuple(names)

    def graph(self, name: str) -> Path:
        """Path of a graph, such as "decoder"."""
        return self.path / f"{name}.onnx"

    def verify(self) -> tuple[str, ...]:
        """Compare the digests of all files with the manifest, which reads every byte; returns their names.

        Raises:
            InvalidArtifact: Files are missing or changed.
        """
        return verify_manifest(self.path)


def is_package(path: str | Path) -> bool:
    """Whether a folder is an ONNX package (and not, say, a checkpoint)."""
    return (Path(path) / DESCRIPTION_NAME).is_file()


def open_package(path: str | Path, modalities: Sequence[Modality] | None = None) -> OnnxPackage:
    """Read and check a package; opens no session.

    Args:
        path: The folder.
        modalities: What is going to be used; None = all it has. Graphs of other parts need not be there.

    Raises:
        InvalidRequest: A modality the package does not have.
        InvalidConfig: The config cannot work.
        InvalidArtifact: A file is missing, of another size, hostile, or does not fit the others.
    """
    folder = Path(path)
    description = read_description(folder)
    config = package_config(folder, description)
    package = OnnxPackage(
        path=folder,
        config=config,
        precision=description.precision,
        user_slot=description.user_slot,
        prefill=description.prefill,
        embedding=description.embedding,
        parts=check_parts(config, modalities),
        context=description.context,
        cache=description.cache,
        merged_adapter=description.merged,
    )
    _check_files(package)
    return package


def package_config(folder: Path, description: Description) -> Phi4Config:
    """The model of `config.json`, without the parts and adapters the package leaves out.

    Raises:
        InvalidConfig: The config cannot work.
        InvalidArtifact: The description does not fit it.
    """
    config, where = read_config(folder), folder / DESCRIPTION_NAME
    parts, adapters = description.parts, description.adapters
    known = [adapter.name for adapter in config.adapters]
    for field, names, there in (("parts", parts, config.modalities), ("adapters", adapters, known)):
        if not set(names) <= set(there):
            raise refusal(where, field, list(names), f"among {list(there)}, as config.json has it")
    most = config.decoder.max_position_embeddings
    if description.context is not None and description.context > most:
        raise refusal(where, "context", description.context, f"at most {most}, as config.json has it")
    half = padded_half(config.decoder)
    if description.rotary_half != half:
        raise refusal(where, "rotary_half", description.rotary_half, f"{half}, as config.json implies")
    return replace(
        config,
        vision=config.vision if "vision" in parts else None,
        speech=config.speech if "speech" in parts else None,
        adapters=tuple(adapter for adapter in config.adapters if adapter.name in adapters),
    )


def _check_files(package: OnnxPackage) -> None:
    """Every file the package's parts need: listed, in the folder, of the right size, and not hostile."""
    sizes = manifest_sizes(package.path)
    embedding, decoder = package.embedding, package.config.decoder
    needed = {embedding.file: embedding.end(decoder.vocab_size, decoder.hidden_size)}
    for name in package.graphs:
        path = package.graph(name)
        _check_size(package.path, path.name, sizes)
        data, end = f"{path.name}.data", _weights_end(path)
        needed[data] = max(end, needed.get(data, 0))
    for file, end in needed.items():
        _check_size(package.path, file, sizes)
        size = (package.path / file).stat().st_size
        if size < end:
            raise InvalidArtifact(
                f"{package.path / file}: {size} bytes, but it is read up to byte {end}; "
                "fetch or export the file again"
            )


def _weights_end(path: Path) -> int:
    """First byte of a graph's data file that the graph does not read."""
    if path.stat().st_size > MAX_GRAPH_BYTES:
        raise InvalidArtifact(
            f"{path}: {path.stat().st_size} bytes, a graph has at most {MAX_GRAPH_BYTES}; export it again"
        )
    try:
        files = external_files(path.read_bytes())
    except ValueError as problem:
        raise InvalidArtifact(f"{path}: not an ONNX graph ({problem}); fetch or export it again") from None
    for file in files:
        if file != f"{path.name}.data":
            raise InvalidArtifact(
                f"{path}: takes weights from {file[:120]!r}, a graph of a package does from "
                f"{path.name}.data only; do not use files of this origin"
            )
    return files.get(f"{path.name}.data", 0)


def manifest_sizes(folder: Path) -> dict[str, Any]:
    """Files the manifest lists, each with the size it states; what it states is not checked here.

    Raises:
        InvalidArtifact: No manifest, or a broken one.
    """
    where = folder / MANIFEST_NAME
    files = read_json_object(where).get("files")
    if not isinstance(files, dict):
        raise InvalidArtifact(f"{where}: files must be an object; export the model again")
    return {name: stated.get("bytes") if isinstance(stated, dict) else None for name, stated in files.items()}


def _check_size(folder: Path, file: str, sizes: Mapping[str, Any]) -> None:
    path = contained(folder, file)
    if file not in sizes:
        raise InvalidArtifact(f"{folder / MANIFEST_NAME}: does not list {file!r}; export the model again")
    if not path.is_file():
        raise InvalidArtifact(f"{path}: missing; fetch it, or export the model again")
    if path.stat().st_size != sizes[file]:
        raise InvalidArtifact(
            f"{path}: has {path.stat().st_size} bytes, the manifest states {sizes[file]}; "
            "fetch or export it again"
        )
