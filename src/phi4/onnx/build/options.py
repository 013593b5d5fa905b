"""What to export and how: data with its checks, apart from what carries it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from phi4.checkpoint.inventory import adapters_for, check_parts
from phi4.configs import Phi4Config
from phi4.errors import InvalidRequest
from phi4.onnx.build.linear import Precision
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
        context: Longest sequence the package serves, in tokens; None = what the model can. Less means a
            smaller cache at most; positions and LongRoPE factors stay those of the model.
    """

    precision: PrecisionName = "int4"
    parts: Mapping[Part, PrecisionName] = field(default_factory=dict)
    modalities: tuple[Modality, ...] | None = None
    merge_adapter: str | None = None
    fast: bool = False
    user_slot: bool = True
    block_size: int = 128
    context: int | None = None

    def of(self, part: Part) -> Precision:
        """Precision of a part."""
        return Precision(self.parts.get(part, DEFAULTS[self.precision][part]), self.block_size)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON gives them back."""
        modalities = None if self.modalities is None else list(self.modalities)
        return {**vars(self), "parts": dict(self.parts), "modalities": modalities}


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
    for name in (options.precision, *options.parts.values()):
        if name not in PRECISIONS:
            raise InvalidRequest(f"precision {name!r}: choose one of {', '.join(PRECISIONS)}")
    there = [part for part in PARTS if part in ("decoder", "head", *parts)]
    for part in options.parts:
        if part not in there:
            raise InvalidRequest(f"precision of {part!r}: the parts of this package are {', '.join(there)}")
    block = options.block_size
    if not 16 <= block <= 256 or block & (block - 1):
        raise InvalidRequest(f"block size {block}: must be a power of two from 16 to 256")
    most = config.decoder.max_position_embeddings
    if options.context is not None and not 1 <= options.context <= most:
        raise InvalidRequest(f"context {options.context}: must be from 1 to {most} tokens, the model's own")
