"""Rows of the embedding table by token id, read where they stand: in the data file of the head.

Head and table are one matrix, so the table is not stored again and not loaded: the file is mapped, and
only the pages of the rows asked for are read. Rows of a quantised head are dequantised here.
"""

from __future__ import annotations

import numpy as np

from phi4.onnx.package import OnnxPackage
from phi4.onnx.package.quantise import dequantise_blocks
from phi4.shapes import AnyArray, FloatArray, IntArray


class Embedding:
    """The table of a package.

    Args:
        package: Its files have been checked, so the table lies inside its file.
    """

    def __init__(self, package: OnnxPackage) -> None:
        layout, decoder = package.embedding, package.config.decoder
        rows, columns = decoder.vocab_size, decoder.hidden_size
        self._layout = layout
        self._columns = columns
        path = package.path / layout.file

        def mapped(dtype: str, offset: int, *shape: int) -> AnyArray:
            return np.memmap(path, np.dtype(dtype), "r", offset, shape)

        if layout.kind == "nbits":
            blocks = layout.num_blocks(columns)
            width = layout.block_size * layout.bits // 8
            self._values = mapped("u1", layout.offset, rows, blocks, width)
            self._scales = mapped("<f4", layout.scales_offset, rows, blocks)
        else:
            self._values = mapped("<f4" if layout.kind == "fp32" else "<f2", layout.offset, rows, columns)

    def rows(self, token_ids: IntArray) -> FloatArray:
        """`[n]` ids, at least one, to `[n, D]` float32 vectors.

        Raises:
            IndexError: An id is not in the vocabulary.
        """
        assert int(token_ids.min()) >= 0, "token ids are not negative"
        picked = np.asarray(self._values[token_ids])
        if self._layout.kind == "nbits":
            scales = np.asarray(self._scales[token_ids])
            return dequantise_blocks(picked, scales, self._layout.bits, self._columns)
        return picked.astype(np.float32, copy=False)
