"""Prompts cut into pieces, at spans and anywhere else."""

from __future__ import annotations

import numpy as np
import pytest

from phi4.engine.request import pieces_between, prompt_pieces
from phi4.engine.runner import MediaHandle, MediaPiece, Piece, TextPiece
from phi4.types import MediaSpan, ModelInputs

SPANS = (MediaSpan("audio", 0, 2, 3), MediaSpan("image", 0, 5, 2), MediaSpan("audio", 1, 9, 1))
INPUTS = ModelInputs(np.arange(12), spans=SPANS)
IMAGES = (MediaHandle(10, 2),)
AUDIOS = (MediaHandle(20, 3), MediaHandle(21, 1))


def spelt(pieces: tuple[Piece, ...]) -> list[object]:
    """One entry a position: a token id, or (handle, index)."""
    found: list[object] = []
    for piece in pieces:
        if isinstance(piece, TextPiece):
            found += piece.token_ids.tolist()
        else:
            found += [(piece.handle.id, at) for at in range(piece.start, piece.start + piece.length)]
    return found


WHOLE = [0, 1, (20, 0), (20, 1), (20, 2), (10, 0), (10, 1), 7, 8, (21, 0), 10, 11]


def test_media_take_the_place_of_their_placeholders() -> None:
    pieces = prompt_pieces(INPUTS, IMAGES, AUDIOS)
    assert spelt(pieces) == WHOLE
    assert [type(piece) for piece in pieces] == [
        TextPiece,
        MediaPiece,
        MediaPiece,
        TextPiece,
        MediaPiece,
        TextPiece,
    ]


def test_a_prompt_may_end_with_a_medium() -> None:
    inputs = ModelInputs(np.arange(5), spans=(MediaSpan("image", 0, 3, 2),))
    assert spelt(prompt_pieces(inputs, IMAGES, ())) == [0, 1, 2, (10, 0), (10, 1)]


@pytest.mark.parametrize("start", range(12))
def test_any_cut_gives_exactly_its_positions(start: int) -> None:
    pieces = prompt_pieces(INPUTS, IMAGES, AUDIOS)
    for stop in range(start, 13):
        assert spelt(pieces_between(pieces, start, stop)) == WHOLE[start:stop]
