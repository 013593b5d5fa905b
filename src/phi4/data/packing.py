"""Packs documents of different length into rows of one length, so that no position is wasted on padding.

A row is token ids with a segment number at each place. What follows from the numbers is the reader's work:
positions start again and attention stays inside a segment. Longer documents are cut and go on in the next
row. Order is kept: row k depends only on the documents up to it, so packing can start again anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from phi4.errors import InvalidRequest
from phi4.shapes import IntArray


@dataclass(frozen=True)
class PackedRow:
    """One row of several documents.

    Attributes:
        token_ids: `[T]` int64; `pad_id` behind the last document.
        segment_ids: `[T]` int64, 0, 1, 2 ... one number for each document, -1 = padding.
    """

    token_ids: IntArray
    segment_ids: IntArray


def pack(documents: Iterable[IntArray], row_tokens: int, pad_id: int = 0) -> Iterator[PackedRow]:
    """Yields rows of exactly `row_tokens` tokens; every token of every document, in order.

    Args:
        documents: Token ids of each document, its end token included; empty ones are skipped.
        row_tokens: Length of a row, 1 or more.
        pad_id: Filler of the last row.

    Raises:
        InvalidRequest: `row_tokens` is below 1.
    """
    if row_tokens < 1:
        raise InvalidRequest(f"a row must hold at least 1 token, got row_tokens={row_tokens}")
    pieces: list[IntArray] = []
    room = row_tokens
    for document in documents:
        rest = np.asarray(document, np.int64)
        while len(rest):
            pieces.append(rest[:room])
            rest = rest[room:]
            room -= len(pieces[-1])
            if room == 0:
                yield _row(pieces, row_tokens, pad_id)
                pieces, room = [], row_tokens
    if pieces:
        yield _row(pieces, row_tokens, pad_id)


def _row(pieces: list[IntArray], row_tokens: int, pad_id: int) -> PackedRow:
    lengths = [len(piece) for piece in pieces]
    token_ids = np.full(row_tokens, pad_id, np.int64)
    segment_ids = np.full(row_tokens, -1, np.int64)
    used = sum(lengths)
    token_ids[:used] = np.concatenate(pieces)
    segment_ids[:used] = np.repeat(np.arange(len(pieces)), lengths)
    return PackedRow(token_ids, segment_ids)
