"""Weights beside a graph: one external file, written front to back while the graph is built.

Each array is on disk before the next is made, so a build never holds more than one tensor. The same
arrays in the same order give the same bytes. Offsets are multiples of 64 bytes, those of large arrays
of a page, so that a memory map needs no copy.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import onnx_ir as ir

from phi4.shapes import AnyArray

PAGE_BYTES = 4096
SMALL_ALIGNMENT = 64


@dataclass(frozen=True)
class Place:
    """Where an array stands in the file: first byte and number of bytes."""

    offset: int
    nbytes: int


class WeightSink:
    """The external file of one graph; use it as a context, which publishes the file when nothing failed.

    Args:
        path: The file; hidden under a `.part` name until it is complete.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.places: dict[str, Place] = {}
        self._part = path.with_name(path.name + ".part")
        self._file = self._part.open("wb")
        self._digest = hashlib.sha256()

    def put(self, name: str, array: AnyArray) -> ir.ExternalTensor:
        """Append an array.

        Args:
            name: Its name in the graph.
            array: Contiguous, in the type it is stored in; written little endian.
        """
        alignment = PAGE_BYTES if array.nbytes >= PAGE_BYTES else SMALL_ALIGNMENT
        self._write(b"\0" * (-self._file.tell() % alignment))
        place = Place(self._file.tell(), array.nbytes)
        self._write(array.reshape(-1).view("u1").data)
        self.places[name] = place
        return ir.ExternalTensor(
            location=self.path.name,
            offset=place.offset,
            length=place.nbytes,
            dtype=ir.DataType.from_numpy(array.dtype),
            name=name,
            shape=ir.Shape(array.shape),
            base_dir=self.path.parent,
        )

    @property
    def sha256(self) -> str:
        """Digest of what was written so far."""
        return self._digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
        if kind is None:
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._digest.update(data)
