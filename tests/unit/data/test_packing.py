"""Packing loses nothing, wastes nothing, and marks where documents begin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi4.data.packing import pack
from phi4.errors import InvalidRequest

DOCUMENTS = st.lists(st.lists(st.integers(1, 99), max_size=30), max_size=20)


@given(DOCUMENTS, st.integers(1, 17))
def test_rows_hold_every_token_in_order_and_nothing_else(documents: list[list[int]], width: int) -> None:
    rows = list(pack([np.array(d, np.int64) for d in documents], width))
    assert all(len(row.token_ids) == width for row in rows)
    kept = [int(t) for row in rows for t in row.token_ids[row.segment_ids >= 0]]
    assert kept == [token for document in documents for token in document]


@given(DOCUMENTS, st.integers(1, 17))
def test_only_the_last_row_has_padding(documents: list[list[int]], width: int) -> None:
    rows = list(pack([np.array(d, np.int64) for d in documents], width, pad_id=-7))
    for row in rows[:-1]:
        assert (row.segment_ids >= 0).all()
    for row in rows:
        padding = row.segment_ids < 0
        assert (row.token_ids[padding] == -7).all()
        assert (np.diff(padding.astype(int)) >= 0).all(), "padding stands at the end"


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(1, 17))
def test_segments_are_numbered_from_zero_and_change_exactly_where_documents_do(
    lengths: list[int], width: int
) -> None:
    documents = [np.full(length, number, np.int64) for number, length in enumerate(lengths)]
    for row in pack(documents, width):
        real = row.segment_ids >= 0
        segments, owners = row.segment_ids[real], row.token_ids[real]
        assert segments[0] == 0
        assert np.array_equal(np.diff(segments), (np.diff(owners) != 0).astype(int))


def test_a_row_of_no_tokens_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="row_tokens=0"):
        next(pack([np.array([1])], 0))
