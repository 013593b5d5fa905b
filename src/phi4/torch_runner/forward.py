"""Rows of a plan to hidden states: padding, embedding, media slices, one pass of the decoder.

Rows of very different length do not share a pass, so that fifteen decoding rows never pay for the
prompt chunk beside them. Everything a row needs (position, regime, adapters, cache) is its own, so
company changes nothing but rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from phi4.engine.runner import Row, TextPiece
from phi4.model import Phi4Model, regime_indices
from phi4.torch_runner.attend import CachedAttend, group_rows
from phi4.torch_runner.cache import CachedSequence


@dataclass(frozen=True)
class Work:
    """One row of a plan with its cached sequence; `place` is its index in the plan."""

    place: int
    row: Row
    sequence: CachedSequence

    @property
    def count(self) -> int:
        """Positions it appends."""
        return self.row.num_positions


def split_by_length(work: Sequence[Work]) -> list[list[Work]]:
    """Batches whose shortest row is at least half as long as the longest; neighbours in memory adjoin."""
    batches: list[list[Work]] = []
    for item in sorted(work, key=lambda item: -item.count):
        if not batches or 2 * item.count < batches[-1][0].count:
            batches.append([])
        batches[-1].append(item)
    return [
        sorted(batch, key=lambda item: (item.sequence.pool.capacity, item.sequence.lane)) for batch in batches
    ]


def run_batch(model: Phi4Model, features: Mapping[int, Tensor], batch: Sequence[Work]) -> Tensor:
    """Append the rows' positions to their caches.

    Args:
        model: The network.
        features: Encoder outputs `[n, D]` by handle id.
        batch: Rows from `split_by_length`.

    Returns:
        `[B, T, D]` hidden states; row `i` holds `batch[i].count` real positions, then padding.
    """
    device = model.device
    counts = [item.count for item in batch]
    embedded = _embed(model, features, batch, max(counts))
    starts = torch.tensor([item.sequence.length for item in batch], device=device)
    positions = starts[:, None] + torch.arange(max(counts), device=device)  # [B, T]
    regimes = regime_indices([item.sequence.spec.regime for item in batch], device)
    angles = model.rotary(positions, regimes, embedded.dtype)
    attend = CachedAttend(model.attention, group_rows([item.sequence for item in batch], counts, device))
    plan = model.router.make_plan([item.sequence.spec.adapters for item in batch], device)
    with model.router.use(plan):
        hidden: Tensor = model.decoder(embedded, angles, attend)
    for item in batch:
        item.sequence.length += item.count
    return hidden


def _embed(model: Phi4Model, features: Mapping[int, Tensor], batch: Sequence[Work], width: int) -> Tensor:
    ids = np.zeros((len(batch), width), np.int64)
    media: list[tuple[int, int, Tensor]] = []
    for index, item in enumerate(batch):
        at = 0
        for piece in item.row.pieces:
            if isinstance(piece, TextPiece):
                ids[index, at : at + len(piece.token_ids)] = piece.token_ids
                at += len(piece.token_ids)
            else:
                media.append((index, at, features[piece.handle.id][piece.start : piece.start + piece.length]))
                at += piece.length
        if item.row.drafts:
            ids[index, at : at + len(item.row.drafts)] = item.row.drafts
    hidden: Tensor = model.decoder.embed(torch.from_numpy(ids).to(model.device))  # [B, T, D]
    for index, at, vectors in media:
        hidden[index, at : at + len(vectors)] = vectors.to(hidden.dtype)
    return hidden
