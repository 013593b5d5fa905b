"""`phi4_onnx.json`: what a package says of itself beyond the model's config, read and written.

    description = read_description(folder)
    write_description(folder, description)

Every field is checked when it is read, since the file may come from anywhere. Whether the fields fit the
config and the files beside them is checked in `folder.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from phi4.configs.decoder import DecoderConfig
from phi4.configs.jsonfile import read_json_object
from phi4.errors import InvalidArtifact
from phi4.types import Modality

DESCRIPTION_NAME = "phi4_onnx.json"
VERSION = 1
EmbeddingKind = Literal["fp32", "fp16", "nbits"]
CacheKind = Literal["fp32", "fp16"]
CACHE_BYTES: Mapping[CacheKind, int] = {"fp32": 4, "fp16": 2}
"""How keys and values are kept -> bytes of one number."""
_Kind = TypeVar("_Kind", bound=str)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LAYER = re.compile(r"decoder\.layers\.\d+\.(?:self_attn|mlp)\.[a-z_]+_proj")


@dataclass(frozen=True)
class EmbeddingLayout:
    """Where the rows of the embedding table stand.

    Attributes:
        file: Name of the file, usually that of the head's weights, whose matrix the table is.
        kind: "fp32" or "fp16" rows `[V, D]`, or "nbits": blocks as `phi4.onnx.package.quantise` packs them.
        offset: First byte of the values.
        bits: 4 or 8, of "nbits".
        block_size: Values that share a scale, of "nbits".
        scales_offset: First byte of the float32 scales `[V, blocks]`, of "nbits".
    """

    file: str
    kind: EmbeddingKind
    offset: int
    bits: int = 4
    block_size: int = 128
    scales_offset: int = 0

    def num_blocks(self, columns: int) -> int:
        """Blocks of a row of `columns` values."""
        return -(-columns // self.block_size)

    def end(self, rows: int, columns: int) -> int:
        """First byte after a table of that size."""
        if self.kind != "nbits":
            return self.offset + rows * columns * (4 if self.kind == "fp32" else 2)
        blocks = rows * self.num_blocks(columns)
        packed = self.offset + blocks * (self.block_size * self.bits // 8)
        return max(packed, self.scales_offset + blocks * 4)


@dataclass(frozen=True)
class Description:
    """Contents of `phi4_onnx.json`.

    Attributes:
        parts: Modalities the package has graphs for, text included.
        precision: "decoder", "head" and the encoders it has -> how their weights are stored.
        adapters: Adapters inside the decoder's graph.
        user_slot: Whether the graph takes an adapter of the user's own.
        prefill: Whether there is a second form of the decoder for prompts.
        rotary_half: Width of the rotary tables.
        embedding: Where the embedding table stands.
        context: Longest sequence the package serves, in tokens; None = what the model can.
        layers: Patterns of decoder layers' names -> how their weights are stored, where it differs from
            the decoder's; see `layer_precision`.
        method: How 4-bit weights were chosen; "rtn" is rounding to nearest.
        cache: How keys and values are kept.
        merged: The adapter that is part of the decoder's weights; None = none was merged.
        block_size: Weights that share a scale, in every part of 4 or 8 bits; None = the package is older
            than this field.
        template: SHA-256 of the chat template the exported model came with, as
            `phi4.processing.chat_template.source_template` gives it; None = it came with none.
    """

    parts: tuple[Modality, ...]
    precision: Mapping[str, str]
    adapters: tuple[str, ...]
    user_slot: bool
    prefill: bool
    rotary_half: int
    embedding: EmbeddingLayout
    context: int | None = None
    layers: Mapping[str, str] = field(default_factory=dict)
    method: str = "rtn"
    cache: CacheKind = "fp32"
    merged: str | None = None
    block_size: int | None = None
    template: str | None = None


def cache_bytes_per_token(decoder: DecoderConfig, cache: CacheKind) -> int:
    """Keys and values of one position in all layers."""
    return 2 * decoder.num_hidden_layers * decoder.kv_dim * CACHE_BYTES[cache]


def layer_of(tensor: str) -> str:
    """The decoder's linear layer a tensor belongs to, its adapters' matrices included; "" = to none."""
    found = _LAYER.match(tensor)
    return found[0] if found else ""


def layer_precision(layers: Mapping[str, _Kind], layer: str) -> _Kind | None:
    """How a linear layer's weights are stored where that was said for it alone.

    Args:
        layers: Patterns as shells have them, "decoder.layers.*.mlp.down_proj"; the first that fits counts.
        layer: Name of the layer.
    """
    return next((kind for pattern, kind in layers.items() if fnmatchcase(layer, pattern)), None)


def write_description(folder: Path, description: Description) -> None:
    """Write `phi4_onnx.json`; the same description always gives the same bytes."""
    raw = {"version": VERSION, **asdict(description)}
    text = json.dumps(raw, indent=2, ensure_ascii=False) + "\n"
    part = folder / f"{DESCRIPTION_NAME}.part"
    part.write_text(text, encoding="utf-8", newline="\n")
    part.replace(folder / DESCRIPTION_NAME)


def read_description(folder: Path) -> Description:
    """Read and check `phi4_onnx.json`.

    Raises:
        InvalidArtifact: Missing, broken, of another version, or a field cannot be; names field and value.
    """
    where = folder / DESCRIPTION_NAME
    raw = read_json_object(where)
    if raw.get("version") != VERSION:
        raise InvalidArtifact(
            f"{where}: version is {raw.get('version')!r}, this phi4 reads version {VERSION}; "
            "export the model again with this phi4, or use the phi4 that wrote it"
        )
    valid = list(get_args(Modality))
    parts, adapters, block = raw.get("parts"), raw.get("adapters"), raw.get("block_size")
    if not isinstance(parts, list) or "text" not in parts or any(part not in valid for part in parts):
        raise refusal(where, "parts", parts, f"a list of {valid} with text in it")
    if not isinstance(adapters, list) or not all(isinstance(name, str) for name in adapters):
        raise refusal(where, "adapters", adapters, "a list of names")
    return Description(
        parts=tuple(parts),
        precision=_precision(where, raw.get("precision")),
        adapters=tuple(adapters),
        user_slot=_flag(where, raw, "user_slot"),
        prefill=_flag(where, raw, "prefill"),
        rotary_half=_whole(where, "rotary_half", raw.get("rotary_half")),
        embedding=_embedding(where, raw.get("embedding")),
        context=_context(where, raw.get("context")),
        layers=_strings(where, "layers", raw.get("layers", {})),
        method=_method(where, raw.get("method", "rtn")),
        cache=_cache(where, raw.get("cache", "fp32")),
        merged=_merged(where, raw.get("merged")),
        block_size=_block_size(where, "block_size", block) if block is not None else None,
        template=_template(where, raw.get("template")),
    )


def refusal(where: Path, field: str, value: object, valid: str) -> InvalidArtifact:
    """The error for a field of a description.

    Args:
        where: The file.
        field: Its name, with dots.
        value: What stands there.
        valid: The end of the sentence "must be ...".
    """
    return InvalidArtifact(
        f"{where}: {field} is {repr(value)[:120]}, must be {valid}; export the model again"
    )


def _flag(where: Path, raw: Mapping[str, Any], field: str) -> bool:
    value = raw.get(field)
    if not isinstance(value, bool):
        raise refusal(where, field, value, "true or false")
    return value


def _whole(where: Path, field: str, value: Any) -> int:
    # Also of the two offsets: a map of float32 numbers begins at a multiple of their size.
    if isinstance(value, bool) or not isinstance(value, int) or value < 0 or value % 4:
        raise refusal(where, field, value, "0 or a positive multiple of 4")
    return value


def _cache(where: Path, value: Any) -> CacheKind:
    kind = next((kind for kind in CACHE_BYTES if kind == value), None)
    if kind is None:
        raise refusal(where, "cache", value, f"one of {list(CACHE_BYTES)}")
    return kind


def _block_size(where: Path, field: str, value: Any) -> int:
    if not isinstance(value, int) or not 16 <= value <= 4096 or value & (value - 1):
        raise refusal(where, field, value, "a power of two from 16 to 4096")
    return value


def _merged(where: Path, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise refusal(where, "merged", value, "null or the name of an adapter")
    return value


def _template(where: Path, value: Any) -> str | None:
    if value is not None and not (isinstance(value, str) and _SHA256.fullmatch(value)):
        raise refusal(where, "template", value, "null or a SHA-256")
    return value


def _context(where: Path, value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise refusal(where, "context", value, "null or a number of tokens from 1")
    return value


def _precision(where: Path, raw: Any) -> dict[str, str]:
    found = _strings(where, "precision", raw)
    if not {"decoder", "head"} <= set(found):
        raise refusal(where, "precision", raw, "given for decoder and head")
    return found


def _strings(where: Path, field: str, raw: Any) -> dict[str, str]:
    if not isinstance(raw, dict) or not all(isinstance(value, str) for value in raw.values()):
        raise refusal(where, field, raw, "an object of names and their precision")
    return dict(raw)


def _method(where: Path, value: Any) -> str:
    if not isinstance(value, str):
        raise refusal(where, "method", value, "a word")
    return value


def _embedding(where: Path, raw: Any) -> EmbeddingLayout:
    if not isinstance(raw, dict):
        raise refusal(where, "embedding", raw, "an object")
    kinds: tuple[EmbeddingKind, ...] = get_args(EmbeddingKind)
    file, kind = raw.get("file"), next((kind for kind in kinds if kind == raw.get("kind")), None)
    if not isinstance(file, str):
        raise refusal(where, "embedding.file", file, "the name of a file in the folder")
    if kind is None:
        raise refusal(where, "embedding.kind", raw.get("kind"), f"one of {list(kinds)}")
    offset = _whole(where, "embedding.offset", raw.get("offset"))
    if kind != "nbits":
        return EmbeddingLayout(file, kind, offset)
    bits, block = raw.get("bits"), _block_size(where, "embedding.block_size", raw.get("block_size"))
    if not isinstance(bits, int) or bits not in (4, 8):
        raise refusal(where, "embedding.bits", bits, "4 or 8")
    scales = _whole(where, "embedding.scales_offset", raw.get("scales_offset"))
    return EmbeddingLayout(file, kind, offset, bits, block, scales)
