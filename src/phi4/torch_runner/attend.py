"""The decoder's attention over cached lanes: write the new keys and values, read all that came before.

A batch is padded on the right, each row has its own length, and rows may sit in pools of different
capacity; the rows of one pool attend together. Padded positions are never written and nobody reads
what they compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from phi4.model.attention import Attention
from phi4.torch_runner.cache import CachedSequence, Pool


@dataclass(frozen=True)
class PoolRows:
    """Rows of a batch that share a pool.

    Attributes:
        pool: Their pool.
        rows: `[b]` their places in the batch; None = the whole batch in order.
        lanes: Their lanes: a slice when they lie side by side, else `[b]`.
        source: `([n], [n])` places (row, position in the batch) of the real tokens among these rows.
        target: `([n], [n])` lane and position in the lane of the same tokens.
        span: Positions of the longest of them after this step.
        mask: `[b, 1, T, span]`, True = may be seen; None = all lanes were empty: plain causality over this
            step's own tokens, where padding on the right disturbs nobody.
    """

    pool: Pool
    rows: Tensor | None
    lanes: slice | Tensor
    source: tuple[Tensor, Tensor]
    target: tuple[Tensor, Tensor]
    span: int
    mask: Tensor | None


@dataclass(frozen=True)
class CachedAttend:
    """The `Attend` of a runner with a cache; see `phi4.model.attention`."""

    attention: Attention
    groups: tuple[PoolRows, ...]

    def __call__(self, layer_index: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Mix `[B, N, T, H]` queries with the lanes' values."""
        if len(self.groups) == 1 and self.groups[0].rows is None:
            return self._attend(self.groups[0], layer_index, query, key, value)
        mixed = torch.zeros_like(query)
        for group in self.groups:
            rows = group.rows
            assert rows is not None
            mixed[rows] = self._attend(group, layer_index, query[rows], key[rows], value[rows])
        return mixed

    def _attend(self, group: PoolRows, layer_index: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = group.pool.keys[layer_index], group.pool.values[layer_index]
        rows, places = group.source
        lanes, positions = group.target
        keys[lanes, :, positions] = key[rows, :, places]  # [n, K, H]
        values[lanes, :, positions] = value[rows, :, places]
        if group.mask is None:
            return self.attention(query, key, value, is_causal=True)
        seen_keys = keys[group.lanes, :, : group.span]  # [b, K, S, H]
        seen_values = values[group.lanes, :, : group.span]
        if query.shape[2] > 1:
            return self.attention(query, seen_keys, seen_values, mask=group.mask)
        # One query a row: the heads of a group take the place of positions, so no key is repeated.
        batch, heads, _, width = query.shape
        folded = query.reshape(batch, keys.shape[1], -1, width)  # [b, K, N/K, H]
        return self.attention(folded, seen_keys, seen_values, mask=group.mask).reshape(batch, heads, 1, width)


def group_rows(
    sequences: Sequence[CachedSequence], counts: Sequence[int], device: torch.device
) -> tuple[PoolRows, ...]:
    """Plan the attention of a step in which `sequences[i]` appends `counts[i]` positions."""
    pools: dict[int, list[int]] = {}
    for row, sequence in enumerate(sequences):
        pools.setdefault(id(sequence.pool), []).append(row)
    return tuple(_pool_rows(sequences, counts, rows, device) for rows in pools.values())


def _pool_rows(
    sequences: Sequence[CachedSequence], counts: Sequence[int], rows: Sequence[int], device: torch.device
) -> PoolRows:
    members = [sequences[row] for row in rows]
    width = max(counts)
    span = max(sequences[row].length + counts[row] for row in rows)
    tokens = [(i, t) for i, row in enumerate(rows) for t in range(counts[row])]
    numbers = torch.tensor(
        [[i, t, members[i].lane, members[i].length + t] for i, t in tokens], dtype=torch.int64
    ).T.to(device)
    mask = None
    if any(member.length for member in members):
        own = torch.tensor([member.length for member in members], device=device)
        positions = own[:, None] + torch.arange(width, device=device)  # [b, T]
        mask = torch.arange(span, device=device) <= positions[:, None, :, None]  # [b, 1, T, S]
    everyone = len(rows) == len(sequences)
    return PoolRows(
        pool=members[0].pool,
        rows=None if everyone else torch.tensor(rows, device=device),
        lanes=_lanes([member.lane for member in members], device),
        source=(numbers[0], numbers[1]),
        target=(numbers[2], numbers[3]),
        span=span,
        mask=mask,
    )


def _lanes(lanes: Sequence[int], device: torch.device) -> slice | Tensor:
    if list(lanes) == list(range(lanes[0], lanes[0] + len(lanes))):
        return slice(lanes[0], lanes[0] + len(lanes))
    return torch.tensor(lanes, device=device)
