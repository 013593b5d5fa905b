"""A sequence whose continuation is given and only judged."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from phi4.engine.events import Event, TargetScores
from phi4.engine.live.sequence import LiveSequence
from phi4.engine.runner import Nothing, RowResult, Score, Want


@dataclass(eq=False)
class Scoring(LiveSequence):
    """A request for the log-probabilities of its `tokens`.

    Attributes:
        logprobs: One entry per target already judged.
        is_best: Whether that target was the greedy choice.
    """

    logprobs: list[float] = field(default_factory=list)
    is_best: list[bool] = field(default_factory=list)

    @property
    def target_length(self) -> int:
        return self.prompt_length + len(self.tokens) - 1  # nothing follows the last target

    @property
    def rope_length(self) -> int:
        return self.final_length

    @property
    def final_length(self) -> int:
        return self.prompt_length + len(self.tokens)

    @property
    def most_copied(self) -> int:
        return self.prompt_length - 1 + len(self.logprobs)

    def want(self, stop: int) -> Want:
        # What was judged before the cache had to be made anew is not judged again.
        targets = self.tokens[len(self.logprobs) : max(stop + 1 - self.prompt_length, 0)]
        return Score(np.asarray(targets, np.int64)) if targets else Nothing()

    def take(self, result: RowResult) -> Event:
        self.logprobs += [float(value) for value in result.logprobs]
        self.is_best += [bool(value) for value in result.is_best]
        if self.fed < self.target_length:
            return Event(self.id, progress=self.progress())
        scores = TargetScores(tuple(self.tokens), tuple(self.logprobs), all(self.is_best))
        return Event(self.id, scores=scores)
