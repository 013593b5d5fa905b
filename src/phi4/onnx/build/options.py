"""What to export and how: data with its checks, apart from what carries it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from phi4.checkpoint.inventory import adapters_for, check_parts
from phi4.configs import DECODER_TARGETS, Phi4Config
from phi4.errors import InvalidRequest
from phi4.onnx.build.network.linear import Precision
from phi4.onnx.package.description import CACHE_BYTES, CacheKind, layer_precision
from phi4.types import Modality

PrecisionName = Literal["int4", "int8", "fp16", "fp32"]
PRECISIONS: tuple[PrecisionName, ...] = get_args(PrecisionName)
Part = Literal["decoder", "head", "vision", "speech"]
PARTS: tuple[Part, ...] = get_args(Part)
DEFAULTS: Mapping[PrecisionName, Mapping[Part, PrecisionName]] = {
    "int4": {"decoder": "int4", "head": "int8", "vision": "int8", "speech": "int8"},
    "int8": dict.fromkeys(PARTS, "int8"),
    "fp16": dict.fromkeys(PARTS, "fp16"),
    "fp32": dict.fromkeys(PARTS, "fp32"),
}
"""What a precision means for each part. The head and the encoders stay in 8 bits under "int4": there a few
wrong steps cost more than the bytes they save."""

Method = Literal["rtn", "search", "weighted", "gptq"]
METHODS: tuple[Method, ...] = get_args(Method)
"""How 4-bit weights are chosen: rounding to nearest; scales searched for the least squared error; the same,
inputs counting by their size; errors also made good by later inputs (GPTQ)."""
CALIBRATED: tuple[Method, ...] = ("weighted", "gptq")
"""Those that need rows to calibrate with."""


@dataclass(frozen=True)
class ExportOptions:
    """What to export and how.

    Attributes:
        precision: Of everything, see `DEFAULTS`.
        parts: Precision of single parts, where it differs.
        modalities: What the package can do; None = all the checkpoint can.
        merge_adapter: Adapter to add to the decoder's weights for good; it then costs nothing and cannot be
            switched off, and no other is exported.
        fast: Also write the decoder's second form, int8 per channel, for prompts; encoders in 8 bits, which
            always see many rows, have that form alone.
        user_slot: Leave a slot for an adapter of the user's own.
        block_size: Weights that share a scale; shorter = more exact and larger.
        context: Longest sequence the package serves, in tokens; None = what the model can. Less means a
            smaller cache at most; positions and LongRoPE factors stay those of the model.
        method: How 4-bit weights are chosen, see `METHODS`.
        layers: Precision of single linear layers of the decoder, where it differs from the decoder's:
            patterns such as "decoder.layers.*.mlp.down_proj"; the first that fits counts.
        cache: How keys and values are kept while the model answers: "fp16" halves what a token takes.
        sensitive: Measure what each linear layer of the decoder loses with 4 bits, on rows, and give the
            worst ones 8, until its matrices take so many percent more; None = no.
    """

    precision: PrecisionName = "int4"
    parts: Mapping[Part, PrecisionName] = field(default_factory=dict)
    modalities: tuple[Modality, ...] | None = None
    merge_adapter: str | None = None
    fast: bool = False
    user_slot: bool = True
    block_size: int = 128
    context: int | None = None
    method: Method = "rtn"
    layers: Mapping[str, PrecisionName] = field(default_factory=dict)
    cache: CacheKind = "fp32"
    sensitive: float | None = None

    def of(self, part: Part) -> Precision:
        """Precision of a part."""
        return self._precision(self.parts.get(part, DEFAULTS[self.precision][part]))

    def form_of(self, part: Part) -> Precision:
        """The same as its graph has it: in `fast` packages 8-bit encoders take the form for many rows."""
        precision = self.of(part)
        if self.fast and part in ("vision", "speech") and precision.kind == "int8":
            return replace(precision, kind="rows8")
        return precision

    def of_layers(self, config: Phi4Config) -> dict[str, Precision]:
        """Linear layers of the decoder that have a precision of their own, by name."""
        kinds = ((name, layer_precision(self.layers, name)) for name in layer_shapes(config))
        return {name: self._precision(kind) for name, kind in kinds if kind is not None}

    def _precision(self, kind: PrecisionName) -> Precision:
        return Precision(kind, self.block_size)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON gives them back."""
        modalities = None if self.modalities is None else list(self.modalities)
        # Layers as pairs: which of two patterns stands first is part of what they say.
        layers = [list(pair) for pair in self.layers.items()]
        return {**vars(self), "parts": dict(self.parts), "modalities": modalities, "layers": layers}


def layer_shapes(config: Phi4Config) -> dict[str, tuple[int, int]]:
    """Linear layers of the decoder in forward order: name -> `[N, K]`."""
    dims = {target: config.decoder.target_dims(target) for target in DECODER_TARGETS}
    layers = range(config.decoder.num_hidden_layers)
    return {
        f"decoder.layers.{layer}.{target}": (height, width)
        for layer in layers
        for target, (width, height) in dims.items()
    }


def exported_config(config: Phi4Config, options: ExportOptions) -> Phi4Config:
    """The model of the package: the parts and adapters asked for.

    Raises:
        InvalidRequest: An option that cannot be; names it, its value and what is valid.
    """
    parts = check_parts(config, options.modalities)
    names = adapters_for(config, parts)
    _check(config, options, parts)
    if options.merge_adapter is not None:
        if options.merge_adapter not in names:
            have = ", ".join(names) or "none"
            raise InvalidRequest(
                f"merge adapter {options.merge_adapter!r}: a model for {', '.join(parts)} has {have}"
            )
        names = ()
    return replace(
        config,
        vision=config.vision if "vision" in parts else None,
        speech=config.speech if "speech" in parts else None,
        adapters=tuple(config.adapter(name) for name in names),
    )


def _check(config: Phi4Config, options: ExportOptions, parts: tuple[Modality, ...]) -> None:
    for name in (options.precision, *options.parts.values(), *options.layers.values()):
        if name not in PRECISIONS:
            raise InvalidRequest(f"precision {name!r}: choose one of {', '.join(PRECISIONS)}")
    there = [part for part in PARTS if part in ("decoder", "head", *parts)]
    for part in options.parts:
        if part not in there:
            raise InvalidRequest(f"precision of {part!r}: the parts of this package are {', '.join(there)}")
    _check_layers(config, options)
    _check_method(options, there)
    if options.cache not in CACHE_BYTES:
        raise InvalidRequest(f"cache {options.cache!r}: choose one of {', '.join(CACHE_BYTES)}")
    block = options.block_size
    if not 16 <= block <= 256 or block & (block - 1):
        raise InvalidRequest(f"block size {block}: must be a power of two from 16 to 256")
    most = config.decoder.max_position_embeddings
    if options.context is not None and not 1 <= options.context <= most:
        raise InvalidRequest(f"context {options.context}: must be from 1 to {most} tokens, the model's own")


def _check_layers(config: Phi4Config, options: ExportOptions) -> None:
    names = tuple(layer_shapes(config))
    for pattern in options.layers:
        if not any(layer_precision({pattern: ""}, name) is not None for name in names):
            raise InvalidRequest(
                f"precision of layer {pattern!r}: no layer is called so; names are {names[0]} to {names[-1]}"
            )


def _check_method(options: ExportOptions, parts: Sequence[Part]) -> None:
    if options.method not in METHODS:
        raise InvalidRequest(f"method {options.method!r}: choose one of {', '.join(METHODS)}")
    if options.sensitive is not None:
        _check_sensitive(options, options.sensitive)
    kinds = [options.of(part).kind for part in parts] + list(options.layers.values())
    if options.method != "rtn" and "int4" not in kinds:
        raise InvalidRequest(
            f"method {options.method!r}: chooses 4-bit weights, and this package has none; choose precision "
            "int4, or leave method and calibration out"
        )


def _check_sensitive(options: ExportOptions, percent: float) -> None:
    if options.of("decoder").kind != "int4":
        raise InvalidRequest("8 bits for sensitive layers: the others must have 4; choose precision int4")
    if not 0 < percent <= 100:
        raise InvalidRequest(f"{percent} percent more bytes for sensitive layers: must be above 0, up to 100")
