"""A package on disk: which graphs belong to a model, and whether its files can be trusted.

`open_package` reads `config.json`, `phi4_onnx.json` and `manifest.json` and checks, before ONNX Runtime
opens anything, that every needed file is there, lies in the folder and has the content the manifest states,
and that every graph takes its weights from its own data file beside it (`checking.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from phi4.checkpoint.inventory import check_parts
from phi4.checkpoint.manifest import verify_manifest
from phi4.configs import Phi4Config, read_config
from phi4.onnx.package.checking import check_files
from phi4.onnx.package.description import (
    DESCRIPTION_NAME,
    CacheKind,
    Description,
    EmbeddingLayout,
    cache_bytes_per_token,
    read_description,
    refusal,
)
from phi4.onnx.package.parts import (
    data_file,
    decoder_forms,
    graph_names,
    graph_precision,
    has_plain,
    loaded_bytes,
    plain_form,
)
from phi4.onnx.package.rotary_order import padded_half
from phi4.types import Modality


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
        return cache_bytes_per_token(self.config.decoder, self.cache)

    @property
    def rotary_half(self) -> int:
        """Width of the rotary tables."""
        return padded_half(self.config.decoder)

    @property
    def graphs(self) -> tuple[str, ...]:
        """Graphs of its parts."""
        return graph_names(self.parts, self.prefill)

    @property
    def plain_graphs(self) -> tuple[str, ...]:
        """Forms of the decoder that there are without branches too: all, or none.

        They serve whoever gives no adapter. Beside adapters of the package's own there are none: sequences
        with and without would take turns, and two sessions hold the weights twice.
        """
        return decoder_forms(self.prefill) if has_plain(self.user_slot, self.adapters) else ()

    def graph(self, name: str) -> Path:
        """Path of a graph, such as "decoder"."""
        return self.path / f"{name}.onnx"

    def loaded_bytes(self, name: str) -> int:
        """Memory the weights of a graph take in a session."""
        stored = (self.path / data_file(name)).stat().st_size
        return loaded_bytes(stored, graph_precision(name, self.precision))

    def verify(self) -> tuple[str, ...]:
        """Compare the digests of all files with the manifest, which reads every byte; returns their names.

        Raises:
            InvalidArtifact: Files are missing or changed.
        """
        return verify_manifest(self.path)


def is_package(path: str | Path) -> bool:
    """Whether a folder is an ONNX package (and not, say, a checkpoint)."""
    return (Path(path) / DESCRIPTION_NAME).is_file()


def open_package(
    path: str | Path, modalities: Sequence[Modality] | None = None, *, compare_large: bool = True
) -> OnnxPackage:
    """Read and check a package; opens no session.

    Args:
        path: The folder.
        modalities: What is going to be used; None = all it has. Graphs of other parts need not be there.
        compare_large: Also compare the digests of large data files, unless that was done before: gigabytes
            take seconds the first time. Without, of those only the size is compared.

    Raises:
        InvalidRequest: A modality the package does not have.
        InvalidConfig: The config cannot work.
        InvalidArtifact: A file is missing, changed, hostile, or does not fit the others.
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
    table = package.embedding
    ends = {table.file: table.end(config.decoder.vocab_size, config.decoder.hidden_size)}
    plain = [plain_form(name) for name in package.plain_graphs]
    check_files(folder, [*package.graphs, *plain], ends, compare_large)
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
