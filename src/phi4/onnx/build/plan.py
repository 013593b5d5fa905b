"""Which graphs an export writes, of which tensors, and how many bytes they take: known before any is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from phi4.checkpoint.inventory import expected_shapes
from phi4.checkpoint.keymap import part_of
from phi4.configs import Phi4Config
from phi4.onnx.build.network.decoder import Read, build_decoder
from phi4.onnx.build.network.head import TABLE, UNTIED, build_head
from phi4.onnx.build.network.linear import Precision, stored_as, stored_bytes
from phi4.onnx.build.network.speech import ENCODER, build_speech, build_subsampling
from phi4.onnx.build.network.vision import build_vision
from phi4.onnx.build.options import PARTS, ExportOptions
from phi4.onnx.build.weights import PAGE_BYTES
from phi4.onnx.package.description import EmbeddingLayout, layer_of
from phi4.onnx.package.quantise import Quantise, round_to_nearest

Build = Callable[[Read, Path], EmbeddingLayout | None]
GRAPH_BYTES_A_TENSOR = 4096
"""At most what a tensor adds to its graph: nodes, names, branches of an adapter, inputs of the slot."""
_FRONT = (f"{ENCODER}.encoder_embedding.", f"{ENCODER}.embed.")


@dataclass(frozen=True)
class PlannedGraph:
    """One graph of a package.

    Attributes:
        name: Its file's name without ".onnx".
        shapes: The tensors it is made of, by canonical name; each is read once.
        precision: Of its linear layers.
        build: Reads them and writes the graph.
        layers: Precision of single linear layers, where it is another.
    """

    name: str
    shapes: dict[str, tuple[int, ...]]
    precision: Precision
    build: Build
    layers: Mapping[str, Precision] = field(default_factory=dict)

    @property
    def weight_bytes(self) -> int:
        """Bytes of its weights as they will be stored, gaps between them apart."""
        return sum(self._stored(name, shape) for name, shape in self.shapes.items())

    @property
    def room_bytes(self) -> int:
        """At most what its two files take."""
        return self.weight_bytes + len(self.shapes) * (PAGE_BYTES + GRAPH_BYTES_A_TENSOR)

    def _stored(self, name: str, shape: tuple[int, ...]) -> int:
        if len(shape) == 2 and name.endswith(".weight") and not name.endswith(_TABLES):
            precision = self.layers.get(layer_of(name), self.precision)
            return stored_bytes(shape, stored_as(name, shape, precision))
        size = 4
        for dimension in shape:
            size *= dimension
        return size


_TABLES = ("position_embedding.weight", "bias_values.weight")
"""Matrices nothing is multiplied with; float32 at every precision, like convolutions and vectors."""


def plan_graphs(
    config: Phi4Config, options: ExportOptions, quantise: Quantise = round_to_nearest
) -> tuple[PlannedGraph, ...]:
    """The graphs of a package in the order they are written.

    Args:
        config: The model of the package, from `exported_config`.
        options: Precisions, and which graphs there are.
        quantise: Makes the blocks of weights.
    """
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in expected_shapes(config).items():
        shapes.setdefault(_graph_of(name), {})[name] = shape
    width = config.decoder.hidden_size

    def decoder(name: str, precision: Precision, layers: Mapping[str, Precision]) -> PlannedGraph:
        def build(read: Read, path: Path) -> None:
            build_decoder(
                config,
                read,
                path,
                lambda layer: layers.get(layer, precision),
                options.user_slot,
                options.cache,
            )

        return PlannedGraph(name, shapes["decoder"], precision, build, layers)

    def graph(name: str, precision: Precision, build: Build) -> PlannedGraph:
        return PlannedGraph(name, shapes[name], precision, build)

    text, head, seeing, hearing = (replace(options.form_of(part), quantise=quantise) for part in PARTS)
    own = {name: replace(each, quantise=quantise) for name, each in options.of_layers(config).items()}
    found = [decoder("decoder", text, own)]
    if options.fast:
        found.append(decoder("prefill", Precision("rows8", options.block_size), {}))
    found.append(graph("head", head, lambda read, path: build_head(config, read, path, head)))
    vision, speech = config.vision, config.speech
    if vision is not None:
        found.append(
            graph("vision", seeing, lambda read, path: build_vision(vision, width, read, path, seeing))
        )
    if speech is not None:
        found += [
            graph("subsampling", hearing, lambda read, path: build_subsampling(speech, read, path, hearing)),
            graph("speech", hearing, lambda read, path: build_speech(speech, width, read, path, hearing)),
        ]
    return tuple(found)


def _graph_of(name: str) -> str:
    """The graph a tensor goes into; those of the decoder go into both of its forms."""
    part = part_of(name)
    if part == "speech":
        return "subsampling" if name.startswith(_FRONT) else "speech"
    if part == "vision":
        return "vision"
    return "head" if name in (TABLE, UNTIED) else "decoder"
