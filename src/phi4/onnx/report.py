"""What a package is, told from its small files and the sizes of the large ones: the content of `phi4 show`.

    report = describe_package(folder)
    report.as_dict()               # for --json

No session is opened and large data files are not read, so it takes a moment whatever the size. Files that
are missing or not as the manifest states are part of the report, not errors; whether bytes inside large ones
changed is for `OnnxPackage.verify`, which reads all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi4.checkpoint.inspect import EXAMPLE_TOKENS
from phi4.checkpoint.manifest import Listed, read_manifest
from phi4.checkpoint.shards import contained
from phi4.configs import Phi4Config
from phi4.errors import InvalidArtifact
from phi4.onnx.package.checking import GENAI_NAME, GENAI_SETTINGS
from phi4.onnx.package.description import Description, cache_bytes_per_token, read_description
from phi4.onnx.package.folder import open_package, package_config
from phi4.onnx.package.parts import graph_names, graph_precision, loaded_bytes
from phi4.types import Modality


@dataclass(frozen=True)
class GraphReport:
    """One graph of a package.

    Attributes:
        name: Its file's name without ".onnx".
        precision: How its linear layers are stored.
        graph_bytes: Size of the graph itself; 0 = not there.
        weight_bytes: Size of its weights; 0 = not there.
    """

    name: str
    precision: str
    graph_bytes: int
    weight_bytes: int

    @property
    def loaded_bytes(self) -> int:
        """Memory its weights take in a session."""
        return loaded_bytes(self.weight_bytes, self.precision)


@dataclass(frozen=True)
class PackageReport:
    """What stands in a package's folder.

    Attributes:
        path: The folder.
        config: The model, with the parts and adapters of the package.
        description: Contents of `phi4_onnx.json`.
        graphs: Its graphs.
        total_bytes: Size of all files the manifest lists, as they are.
        problems: What keeps it from being opened, a sentence each; empty = nothing.
    """

    path: Path
    config: Phi4Config
    description: Description
    graphs: tuple[GraphReport, ...]
    total_bytes: int
    problems: tuple[str, ...]

    @property
    def context_tokens(self) -> int:
        """Longest sequence it serves."""
        return self.description.context or self.config.decoder.max_position_embeddings

    @property
    def kv_bytes_per_token(self) -> int:
        """Key/value cache one position takes."""
        return cache_bytes_per_token(self.config.decoder, self.description.cache)

    @property
    def example_tokens(self) -> int:
        """Length `memory_bytes` is stated for: the longest the short LongRoPE factors serve, where it may."""
        return min(EXAMPLE_TOKENS, self.context_tokens)

    def modality_sets(self) -> tuple[tuple[Modality, ...], ...]:
        """Sets worth loading: text, text with each encoder, everything."""
        encoders = self.config.modalities[1:]
        sets: list[tuple[Modality, ...]] = [("text",), *(("text", encoder) for encoder in encoders)]
        if len(encoders) > 1:
            sets.append(self.config.modalities)
        return tuple(sets)

    def memory_bytes(self, modalities: Sequence[Modality]) -> int:
        """Memory for the weights of these parts, both forms of the decoder, and the cache of one sequence."""
        names = graph_names(modalities, self.description.prefill)
        weights = sum(graph.loaded_bytes for graph in self.graphs if graph.name in names)
        return weights + self.example_tokens * self.kv_bytes_per_token

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        description = self.description
        return {
            "path": str(self.path),
            "form": "onnx",
            "modalities": list(self.config.modalities),
            "precision": dict(description.precision),
            "layers": dict(description.layers),
            "method": description.method,
            "graphs": [vars(graph) for graph in self.graphs],
            "total_bytes": self.total_bytes,
            "adapters": [vars(adapter) for adapter in self.config.adapters],
            "user_slot": description.user_slot,
            "prefill": description.prefill,
            "context_tokens": self.context_tokens,
            "model_context_tokens": self.config.decoder.max_position_embeddings,
            "original_context_tokens": self.config.decoder.original_max_position_embeddings,
            "merged_adapter": description.merged,
            "cache": description.cache,
            "kv_bytes_per_token": self.kv_bytes_per_token,
            "memory_bytes": {"+".join(parts): self.memory_bytes(parts) for parts in self.modality_sets()},
            "memory_tokens": self.example_tokens,
            "problems": list(self.problems),
        }


def describe_package(path: str | Path) -> PackageReport:
    """Report on a package's folder.

    Raises:
        InvalidConfig: The config cannot work.
        InvalidArtifact: Config, description or manifest are missing, broken, or do not fit each other.
    """
    folder = Path(path)
    description = read_description(folder)
    config = package_config(folder, description)
    total, problems = _files(folder, read_manifest(folder))
    return PackageReport(
        path=folder,
        config=config,
        description=description,
        graphs=_graphs(folder, description),
        total_bytes=total,
        problems=problems or _refusal(folder),
    )


def _graphs(folder: Path, description: Description) -> tuple[GraphReport, ...]:
    def report(name: str) -> GraphReport:
        precision = graph_precision(name, description.precision)
        graph = folder / f"{name}.onnx"
        return GraphReport(name, precision, _size(graph), _size(graph.with_name(f"{graph.name}.data")))

    return tuple(report(name) for name in graph_names(description.parts, description.prefill))


def _files(folder: Path, listed: Mapping[str, Listed]) -> tuple[int, tuple[str, ...]]:
    """Size of the files a manifest lists, and what is wrong with those that phi4 opens."""
    total, problems = 0, []
    for name, stated in listed.items():
        try:
            path = contained(folder, name)
        except InvalidArtifact as refused:
            problems.append(str(refused))
            continue
        total += (size := _size(path))
        if name in (GENAI_NAME, *GENAI_SETTINGS):  # for other programs, and made to be edited
            continue
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif size != stated.size_bytes:
            problems.append(f"{name} has {size} bytes, the manifest states {stated.size_bytes}")
    return total, tuple(problems)


def _refusal(folder: Path) -> tuple[str, ...]:
    """What opening it would be refused for, where all files have the size the manifest states."""
    try:
        open_package(folder, compare_large=False)
    except InvalidArtifact as refused:
        return (str(refused),)
    return ()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
