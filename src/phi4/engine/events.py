"""What a step made visible of a request: text, progress through its prompt, scores, or its failure.

Everything that concerns one request is an event, its errors too: a step raises only what concerns them all.
"""

from __future__ import annotations

from dataclasses import dataclass

from phi4.errors import Phi4Error
from phi4.types import Delta


@dataclass(frozen=True)
class TargetScores:
    """How likely a given answer was.

    Attributes:
        token_ids: The target's tokens.
        logprobs: Natural log-probability of each, given prompt and earlier target tokens.
        is_greedy: True = every token was the likeliest one there.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    is_greedy: bool

    @property
    def total(self) -> float:
        """Log-probability of the whole target."""
        return float(sum(self.logprobs))


@dataclass(frozen=True)
class Progress:
    """How far a prompt is computed.

    Attributes:
        fed: Positions the cache holds.
        total: Positions it needs before the next token can be drawn.
        again: True = tokens were drawn before, and the cache is made anew after a preemption or a LongRoPE
            crossing.
    """

    fed: int
    total: int
    again: bool = False


@dataclass(frozen=True)
class Event:
    """News of one request; one of the four is there.

    Attributes:
        id: Its name, from `EngineCore.submit`.
        delta: A piece of its answer, perhaps without text; the last one carries the completion.
        progress: A chunk of its prompt ran.
        scores: All its targets are judged.
        error: It failed; nothing of it is left in the engine.
    """

    id: int
    delta: Delta | None = None
    progress: Progress | None = None
    scores: TargetScores | None = None
    error: Phi4Error | None = None

    @property
    def ended(self) -> bool:
        """Whether this is the request's last event."""
        completed = self.delta is not None and self.delta.completion is not None
        return completed or self.scores is not None or self.error is not None
