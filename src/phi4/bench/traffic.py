"""Bytes a decoding step has to read: the floor under its time, and the measure of how well it is used.

Computed from the sizes of the config and the precision the runner states, not measured: every weight of the
decoder and the head once a step, whatever the number of rows, and each row's cache. Adapters are not read
for text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from phi4.checkpoint import expected_shapes
from phi4.configs import Phi4Config
from phi4.engine.runner import RunnerInfo
from phi4.onnx.package import is_package
from phi4.onnx.package.description import layer_of, layer_precision, read_description

_TABLE, _HEAD = "decoder.embed_tokens.weight", "decoder.lm_head.weight"
_BITS = {"float32": 32, "bfloat16": 16, "float16": 16, "fp32": 32, "fp16": 32, "rows8": 8}
"""Stored type -> bits a weight takes where it is read; fp16 graphs are widened when a session opens."""
_QUANTISED = {"int8": 8, "int4": 4}
_SCALE_BITS = 32


def step_bytes(config: Phi4Config, info: RunnerInfo, path: Path | None, rows: int, length: int) -> float:
    """Bytes read in one step.

    Args:
        config: The model.
        info: Its runner's: arithmetic, and bytes of cache a position takes.
        path: The model's folder; a package says how its head is stored, and how many weights share a scale.
        rows: Sequences that advance together.
        length: Positions each holds.
    """
    head, block = info.dtype, 128
    layers: Mapping[str, str] = {}
    if path is not None and is_package(path):
        description = read_description(path)
        head = description.precision["head"]
        # An older package says it of its head alone, which is right where that is quantised too.
        block = description.block_size or description.embedding.block_size
        layers = description.layers
    shapes = expected_shapes(config, ("text",), ())
    matrix = _HEAD if _HEAD in shapes else _TABLE  # of an untied table only rows are read
    bits = math.prod(shapes[matrix]) * _bits(head, block)
    for name, shape in shapes.items():
        if name not in (_TABLE, _HEAD):
            kind = layer_precision(layers, layer_of(name)) or info.dtype
            bits += math.prod(shape) * _bits(kind, block)
    return bits / 8 + rows * length * info.bytes_per_token


def _bits(kind: str, block: int) -> float:
    return _QUANTISED[kind] + _SCALE_BITS / block if kind in _QUANTISED else _BITS.get(kind, 32)
