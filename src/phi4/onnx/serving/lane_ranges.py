"""Which lanes compute together: GroupQueryAttention takes rows that lie side by side as one array.

Rows that append one position each are gathered into as few ranges of lanes as can be; each range is a pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

from phi4.onnx.serving.lanes import CachedSequence, Pool


@dataclass(frozen=True)
class LaneRange:
    """Lanes of one pool that lie side by side and compute together.

    Attributes:
        pool: Their pool.
        first: The lowest lane.
        members: `[lanes]` places of their sequences among those asked for; None = an idle lane, which
            computes for nobody.
        lengths: `[lanes]` positions each lane holds; an idle lane may be written there and nowhere else.
    """

    pool: Pool
    first: int
    members: tuple[int | None, ...]
    lengths: tuple[int, ...]


def lane_ranges(sequences: Sequence[CachedSequence], *, paired: bool = False) -> list[LaneRange]:
    """Split sequences that append one position each into ranges of lanes that compute together.

    Idle lanes between them are taken along, each with a position nobody reads, while there are at most as
    many of them as sequences and each has room for one: two passes read all weights twice.

    Args:
        sequences: At least one.
        paired: Make each range an even number of lanes, with an idle one beside it where that takes one.
            Matrix products take rows two at a time and an odd one in another way, whose last bits differ: in
            pairs, what a row computes does not depend on how many others there are.
    """
    pools: dict[int, list[int]] = {}
    for place, sequence in enumerate(sequences):
        pools.setdefault(sequence.pool.stamp, []).append(place)
    ranges: list[LaneRange] = []
    for places in pools.values():
        ranges += _split(sequences, sorted(places, key=lambda place: sequences[place].lane))
    if not paired:
        return ranges
    busy = {(id(sequence.pool), sequence.lane) for sequence in sequences}
    return [_paired(found, busy) for found in ranges]


def _paired(found: LaneRange, busy: Container[tuple[int, int]]) -> LaneRange:
    """The range with an idle lane before or behind it where it is odd, if there is one with room."""
    pool, last = found.pool, found.first + len(found.members) - 1
    if len(found.members) % 2 == 0:
        return found
    for lane in (last + 1, found.first - 1):
        length = pool.used[lane].length if lane in pool.used else 0
        if 0 <= lane < pool.num_lanes and (id(pool), lane) not in busy and length < pool.capacity:
            if lane > last:
                return replace(found, members=(*found.members, None), lengths=(*found.lengths, length))
            return LaneRange(pool, lane, (None, *found.members), (length, *found.lengths))
    return found


def _split(sequences: Sequence[CachedSequence], places: list[int]) -> list[LaneRange]:
    """One range where that may be, else two: cut where most lanes lie idle, or one that is full."""
    pool = sequences[places[0]].pool
    member = {sequences[place].lane: place for place in places}
    lanes = range(min(member), max(member) + 1)
    lengths = [pool.used[lane].length if lane in pool.used else 0 for lane in lanes]
    full = [
        lane
        for lane, length in zip(lanes, lengths, strict=True)
        if lane not in member and length >= pool.capacity
    ]
    if not full and len(lanes) <= 2 * len(places):
        members = tuple(member.get(lane) for lane in lanes)
        return [LaneRange(pool, lanes[0], members, tuple(lengths))]
    gaps = [sequences[b].lane - sequences[a].lane for a, b in itertools.pairwise(places)]
    cut = next((n for n, place in enumerate(places) if full and sequences[place].lane > full[0]), None)
    cut = cut or 1 + gaps.index(max(gaps))
    return _split(sequences, places[:cut]) + _split(sequences, places[cut:])
