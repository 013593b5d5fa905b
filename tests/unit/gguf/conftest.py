"""A written GGUF as plain values: metadata by key, raw tensor bytes and shapes by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader

from phi4.checkpoint import BUILTIN, Checkpoint, open_checkpoint, resolve_model
from phi4.shapes import AnyArray

NUMPY = {
    GGMLQuantizationType.F32: np.dtype("<f4"),
    GGMLQuantizationType.F16: np.dtype("<f2"),
    GGMLQuantizationType.BF16: np.dtype(ml_dtypes.bfloat16),
}


@dataclass(frozen=True)
class GgufFile:
    """What a reader of the format finds.

    Attributes:
        fields: Metadata by key.
        tensors: Arrays by name, in the type and with the row-major shape they are stored in.
    """

    fields: dict[str, Any]
    tensors: dict[str, AnyArray]


def read_gguf(path: Path) -> GgufFile:
    reader = GGUFReader(path)
    tensors = {}
    for tensor in reader.tensors:
        raw = np.ascontiguousarray(tensor.data).reshape(-1).view(np.uint8)
        # The format counts dimensions from the fastest one.
        shape = tuple(int(size) for size in reversed(tensor.shape))
        tensors[tensor.name] = raw.view(NUMPY[tensor.tensor_type]).reshape(shape)
    return GgufFile({key: field.contents() for key, field in reader.fields.items()}, tensors)


@pytest.fixture(scope="session")
def read() -> Any:
    """Reads a file with the `gguf` package's own reader: `read(path)`."""
    return read_gguf


@pytest.fixture(scope="session")
def nano() -> Checkpoint:
    """The text part of the built-in model."""
    assert "nano" in BUILTIN
    return open_checkpoint(resolve_model("nano", ("text",)), ("text",))
