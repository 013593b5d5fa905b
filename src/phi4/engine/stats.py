"""Numbers of a running engine, for metrics pages and tests.

`Counters` is what the engine counts up; `EngineStats` is a copy of it together with how things stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from phi4.types import FinishReason


@dataclass
class Counters:
    """Sums since the engine began; see `EngineStats`."""

    steps: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    preemptions: int = 0
    rope_crossings: int = 0
    failed: int = 0
    finished: dict[FinishReason, int] = field(default_factory=dict)

    def ended(self, reason: FinishReason) -> None:
        """A request has ended well."""
        self.finished[reason] = self.finished.get(reason, 0) + 1


@dataclass(frozen=True)
class EngineStats:
    """An engine at one moment.

    Attributes:
        running: Requests with a cache of their own.
        waiting: Requests that wait for one.
        kept: Ended requests whose caches are kept, for prompts that begin like theirs.
        kept_positions: Positions they reserve.
        cache_usage: Share of the cache that requests reserve, 0 to 1. What is kept gives way, so it is free.
        kept_usage: Share of the cache that kept ones reserve.
        steps: Steps of the runner so far; so are all that follow sums since the engine began.
        prompt_tokens: Positions of prompts, counted when they begin to be computed.
        generation_tokens: Tokens drawn.
        prefix_queries: Positions looked for in other sequences' caches.
        prefix_hits: Of those, positions found there and not computed again.
        encoder_queries: Pictures and recordings that were needed.
        encoder_hits: Of those, the ones an encoder had seen already.
        drafted: Tokens guessed by prompt lookup.
        accepted: Of those, the right ones.
        preemptions: Times a request gave its cache back because memory ran out.
        rope_crossings: Times a cache was made anew at the LongRoPE boundary.
        finished: Answers and scores that ended, by reason; scores count as "stop".
        failed: Requests that ended with an error.
    """

    running: int = 0
    waiting: int = 0
    kept: int = 0
    kept_positions: int = 0
    cache_usage: float = 0.0
    kept_usage: float = 0.0
    steps: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    encoder_queries: int = 0
    encoder_hits: int = 0
    drafted: int = 0
    accepted: int = 0
    preemptions: int = 0
    rope_crossings: int = 0
    finished: Mapping[FinishReason, int] = field(default_factory=dict)
    failed: int = 0
