"""What a caller hands to the generator, and the pieces of a prompt once its media are encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from phi4.engine.answering.grammar import Grammar
from phi4.engine.answering.guards import LoopLimits
from phi4.engine.overflow import Overflow
from phi4.engine.runner import MediaHandle, MediaPiece, Piece, TextPiece
from phi4.types import Message, ModelInputs, SamplingParams, ToolSpec


@dataclass(frozen=True)
class Request:
    """One prompt to answer.

    Attributes:
        messages: The conversation; ignored when `inputs` is given.
        tools: Functions the model may call. Only with tools is the answer searched for calls.
        sampling: How tokens are drawn.
        inputs: The prompt as arrays already, for callers that prepared it themselves.
        adapters: Ordered adapter tuple; None = chosen by the media in the prompt, `()` = adapters off.
        grammar: What may be drawn, fresh for one answer; None = anything.
        loop_guard: When the answer counts as a loop and ends with "repetition"; None = never.
        overflow: What happens to messages that do not fit the context.
    """

    messages: tuple[Message, ...] = ()
    tools: tuple[ToolSpec, ...] = ()
    sampling: SamplingParams = field(default_factory=SamplingParams)
    inputs: ModelInputs | None = None
    adapters: tuple[str, ...] | None = None
    grammar: Grammar | None = None
    loop_guard: LoopLimits | None = field(default_factory=LoopLimits)
    overflow: Overflow = "error"


def prompt_pieces(
    inputs: ModelInputs, images: Sequence[MediaHandle], audios: Sequence[MediaHandle]
) -> tuple[Piece, ...]:
    """Cut a row into text and media pieces, in order; placeholder ids are dropped."""
    pieces: list[Piece] = []
    at = 0
    for span in inputs.spans:
        if span.start > at:
            pieces.append(TextPiece(inputs.token_ids[at : span.start]))
        handle = (images if span.kind == "image" else audios)[span.index]
        pieces.append(MediaPiece(handle, 0, span.length))
        at = span.start + span.length
    if at < len(inputs.token_ids):
        pieces.append(TextPiece(inputs.token_ids[at:]))
    return tuple(pieces)


def piece_length(piece: Piece) -> int:
    """Positions a piece takes."""
    return len(piece.token_ids) if isinstance(piece, TextPiece) else piece.length


def pieces_between(pieces: Sequence[Piece], start: int, stop: int) -> tuple[Piece, ...]:
    """The part of a run of pieces at positions `start` to `stop`; cuts inside text and inside media."""
    found: list[Piece] = []
    at = 0
    for piece in pieces:
        size = piece_length(piece)
        low, high = max(start - at, 0), min(stop - at, size)
        if low < high:
            found.append(_cut(piece, low, high))
        at += size
    return tuple(found)


def _cut(piece: Piece, low: int, high: int) -> Piece:
    if isinstance(piece, TextPiece):
        return TextPiece(piece.token_ids[low:high])
    return MediaPiece(piece.handle, piece.start + low, high - low)


def text_piece(token_ids: Sequence[int]) -> TextPiece:
    """A piece of generated or target tokens."""
    return TextPiece(np.asarray(token_ids, np.int64))
