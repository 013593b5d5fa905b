"""Open sequences of a runner, those in use and those kept because others may begin like them.

Every slot is opened and closed here. A new sequence begins with the longest prefix that any open one
holds (`copy_prefix`); an ended one stays, within limits, until it is the one longest unused or the runner
needs its room. What may be shared is decided by names (`prefix_names`) alone, tenant included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from phi4.engine.live.prefix_names import BLOCK_POSITIONS
from phi4.engine.runner import ModelRunner, SequenceSpec, Slot
from phi4.errors import OutOfMemory


@dataclass(eq=False)
class OpenCache:
    """One open sequence.

    Attributes:
        slot: Its name at the runner.
        spec: What it was opened with.
        length: Positions it holds.
        names: Of the blocks it holds or, while its prompt is being computed, will hold.
        copied: Positions it began with.
    """

    slot: Slot
    spec: SequenceSpec
    length: int = 0
    names: tuple[bytes, ...] = ()
    copied: int = 0


@dataclass(frozen=True)
class Match:
    """The best beginning there is for a new sequence.

    Attributes:
        source: Who holds it; None = nobody.
        length: Positions of it.
        promised: Positions that somebody will hold who is computing them just now; at least `length`.
    """

    source: OpenCache | None = None
    length: int = 0
    promised: int = 0


class PrefixCache:
    """All open sequences of a runner.

    Args:
        runner: Where they are.
        positions: Most positions that ended sequences may keep reserved together; 0 = keep none.
        limit: Most positions that all sequences may reserve together; None = what the runner has room for.
        block: Positions of a block of names.

    Attributes:
        queries: Positions that were looked for so far.
        hits: Positions that were found.
    """

    def __init__(
        self,
        runner: ModelRunner,
        positions: int = 0,
        limit: int | None = None,
        block: int = BLOCK_POSITIONS,
    ) -> None:
        self._runner = runner
        self._positions = positions
        self._limit = limit
        self._block = block
        self._kept: dict[Slot, OpenCache] = {}  # the longest unused first
        self._holders: dict[bytes, list[OpenCache]] = {}
        self.reserved = 0
        self.queries = 0
        self.hits = 0

    @property
    def num_kept(self) -> int:
        """Sequences that are kept for their content."""
        return len(self._kept)

    @property
    def kept_positions(self) -> int:
        """Positions that ended sequences keep reserved."""
        return sum(cache.spec.reserved_tokens for cache in self._kept.values())

    def match(self, names: Sequence[bytes], most: int) -> Match:
        """Who holds the longest beginning of a row with these names, up to `most` positions."""
        source: OpenCache | None = None
        length = promised = 0
        for number, name in enumerate(names, 1):
            holders = self._holders.get(name)
            if not holders:
                break  # whoever holds a longer beginning holds this one
            promised = min(number * self._block, most)
            best = max(holders, key=lambda cache: cache.length)
            if min(best.length, promised) > length:
                source, length = best, min(best.length, promised)
        return Match(source, length, promised)

    def open(self, spec: SequenceSpec, names: Sequence[bytes], most: int) -> OpenCache:
        """Begin a sequence with as much of it as is there already.

        Args:
            spec: As for the runner.
            names: Of its whole blocks.
            most: Positions it may begin with; it has to feed the others itself.

        Raises:
            InvalidRequest: As the runner.
            ContextOverflow: As the runner.
            OutOfMemory: No room; `evict` may make some.
        """
        found = self.match(names, most)
        if found.source is not None and found.source.slot in self._kept:
            self._kept[found.source.slot] = self._kept.pop(found.source.slot)  # the last to be evicted
        cache = self._opened(spec)
        if found.source is not None:
            self._runner.copy_prefix(found.source.slot, cache.slot, found.length)
            cache.length = cache.copied = found.length
        self.queries += most
        self.hits += found.length
        self._register(cache, names)
        return cache

    def leave(self, cache: OpenCache, names: Sequence[bytes]) -> None:
        """A sequence has ended whose content has these names: keep it if that may pay, else close it."""
        whole = len(names) * self._block
        self._unregister(cache)
        fits = 0 < whole <= self._positions
        if not fits or any(other.slot in self._kept for other in self._holders.get(names[-1], ())):
            self._close_slot(cache)  # also when a kept one holds all of it already
            return
        for name in names:
            for covered in list(self._holders.get(name, ())):
                if covered.slot in self._kept and covered.names[-1] == name:
                    self.close(covered)
        kept = self._tight(cache, whole)
        if kept is not None:
            self._register(kept, names)
            self._kept[kept.slot] = kept
            while self.kept_positions > self._positions:
                self.evict()

    def close(self, cache: OpenCache) -> None:
        """End a sequence, in use or kept, and free its memory."""
        self._unregister(cache)
        self._kept.pop(cache.slot, None)
        self._close_slot(cache)

    def evict(self) -> bool:
        """Close the kept sequence longest unused; False when there is none."""
        oldest = next(iter(self._kept.values()), None)
        if oldest is not None:
            self.close(oldest)
        return oldest is not None

    def evict_all(self) -> bool:
        """Close all kept sequences; False when there is none."""
        found = bool(self._kept)
        while self.evict():
            pass
        return found

    def _opened(self, spec: SequenceSpec) -> OpenCache:
        if self._limit is not None and self.reserved + spec.reserved_tokens > self._limit:
            raise OutOfMemory(
                f"no room for a sequence of {spec.reserved_tokens} positions beside {self.reserved} of "
                f"{self._limit}; shorten the prompt or the answer, or run fewer requests at once"
            )
        cache = OpenCache(self._runner.open(spec), spec)
        self.reserved += spec.reserved_tokens
        return cache

    def _tight(self, cache: OpenCache, whole: int) -> OpenCache | None:
        """The cache cut to `whole` positions; moved when it reserves more than twice that, None = no room."""
        if cache.spec.reserved_tokens <= 2 * whole and cache.spec.reserved_tokens <= self._positions:
            self._runner.truncate(cache.slot, whole)
            cache.length = whole
            return cache
        try:
            moved = self._opened(replace(cache.spec, reserved_tokens=whole))
        except OutOfMemory:
            self._close_slot(cache)
            return None
        self._runner.copy_prefix(cache.slot, moved.slot, whole)
        moved.length = whole
        self._close_slot(cache)
        return moved

    def _close_slot(self, cache: OpenCache) -> None:
        self._runner.close(cache.slot)
        self.reserved -= cache.spec.reserved_tokens

    def _register(self, cache: OpenCache, names: Sequence[bytes]) -> None:
        cache.names = tuple(names)
        for name in cache.names:
            self._holders.setdefault(name, []).append(cache)

    def _unregister(self, cache: OpenCache) -> None:
        for name in cache.names:
            holders = self._holders[name]
            holders.remove(cache)
            if not holders:
                del self._holders[name]
        cache.names = ()
