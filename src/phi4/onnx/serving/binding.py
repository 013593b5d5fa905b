"""A session whose inputs and outputs are numpy memory: nothing is copied on the way in or out.

What is bound stays bound from run to run, so a decode step binds only what moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phi4.errors import InvalidArtifact
from phi4.onnx.serving.session import SessionChoice, open_session, runtime_errors
from phi4.shapes import AnyArray

_TYPES = {"float32": "float", "float16": "float16"}
"""numpy's names of types -> ONNX Runtime's."""
Shape = tuple[int | None, ...]
"""Sizes of an input or output; None = free."""


class BoundSession:
    """One open graph.

    Args:
        path: The graph.
        choice: Provider and threads.

    Raises:
        InvalidArtifact: It cannot be run.
        OutOfMemory: Its weights do not fit.
    """

    def __init__(self, path: Path, choice: SessionChoice) -> None:
        self.path = path
        self._session = open_session(path, choice)
        self._binding = self._session.io_binding()
        # The binding knows addresses only, so the arrays are held here.
        self._held: dict[str, AnyArray] = {}

    def check(self, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> None:
        """Refuse a graph whose inputs or outputs are not those its package implies.

        Raises:
            InvalidArtifact: A name is missing or unknown, or a size differs; names it, with both values.
        """
        _check(self.path, self._session.get_inputs(), inputs)
        _check(self.path, self._session.get_outputs(), outputs)

    def check_type(self, name: str, dtype: np.dtype[Any]) -> None:
        """Refuse a graph that keeps an input in another type than its package says.

        ONNX Runtime would convert to and fro, and what it writes then into memory that is also read is wrong.

        Raises:
            InvalidArtifact: The type differs; names both.
        """
        stated = next(value.type for value in self._session.get_inputs() if value.name == name)
        if stated != f"tensor({_TYPES[dtype.name]})":
            raise InvalidArtifact(
                f"{self.path}: {name} is a {stated}, but phi4_onnx.json implies {dtype.name}; the files are "
                "of different packages: export the model again"
            )

    def put(self, name: str, array: AnyArray) -> None:
        """Bind an input; the array is read whenever the graph runs, and held until another is bound."""
        if self._held.get(name) is not array:
            self.lend(name, array)
            self._held[name] = array

    def take(self, name: str, array: AnyArray) -> None:
        """Bind an output; the array is written whenever the graph runs, and held until another is bound."""
        self._bind_output(name, array)
        self._held[name] = array

    def lend(self, name: str, array: AnyArray, written: str | None = None) -> None:
        """Bind memory without holding it: the caller sees to it that it lives when the graph runs.

        Args:
            name: The input that reads it.
            array: Contiguous.
            written: The output that writes the same memory; None = it is only read.
        """
        assert array.flags.c_contiguous, name
        place = array.ctypes.data
        self._binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, place)
        if written is not None:
            self._bind_output(written, array)

    def run(self) -> None:
        """Compute.

        Raises:
            OutOfMemory: Work space ran out.
            InvalidArtifact: The graph cannot compute this.
        """
        with runtime_errors(str(self.path)):
            self._session.run_with_iobinding(self._binding)

    def _bind_output(self, name: str, array: AnyArray) -> None:
        assert array.flags.c_contiguous, name
        self._binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _check(path: Path, stated: Sequence[Any], expected: Mapping[str, Shape]) -> None:
    found = {value.name: tuple(value.shape) for value in stated}
    strange = sorted(set(expected) ^ set(found))
    if strange:
        there = "lacks" if strange[0] in expected else "has an unknown"
        raise InvalidArtifact(
            f"{path}: the graph {there} input or output {strange[0]!r}, so it does not belong to the "
            "config.json and phi4_onnx.json beside it; export the model again"
        )
    for name, shape in expected.items():
        sizes = found[name]
        # A size the graph leaves free is a string or None.
        clash = [a != b for a, b in zip(shape, sizes, strict=False) if isinstance(b, int) and a is not None]
        if len(sizes) != len(shape) or any(clash):
            raise InvalidArtifact(
                f"{path}: {name} has the shape {_written(sizes)}, but config.json implies "
                f"{_written(shape)}; the files are of different models: export the model again"
            )


def _written(shape: Sequence[Any]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
