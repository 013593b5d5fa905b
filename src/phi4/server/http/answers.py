"""Answers while they come: pieces collected into whole ones, and what every route says about them.

`collect` reads events until every answer has ended. The functions below it put usage, log-probabilities and
reasons into OpenAI's words, in one place for all routes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from phi4.server.failures import InternalFailure
from phi4.server.worker.values import Candidate, ScoredToken, ServerEvent
from phi4.types import FinishReason, Timing, Usage

_REASONS = {"repetition": "length", "cancelled": "length"}
"""Our reasons for an end that OpenAI's clients do not know: the answer is not whole, as with "length"."""


@dataclass
class Call:
    """A tool call so far."""

    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass
class Answer:
    """One answer so far.

    Attributes:
        calls: Calls, in order.
        logprobs: Of every token; empty when not asked for.
        finish_reason: Why it ended; None = it has not.
        usage: Token counts, once it has ended.
        timing: Wall times inside the engine, once it has ended.
        waited_s: Its wait for a turn before that.
        cached_tokens: Positions of its prompt that were not computed again.
    """

    calls: list[Call] = field(default_factory=list)
    logprobs: list[ScoredToken] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    usage: Usage = field(default_factory=lambda: Usage(0, 0))
    timing: Timing = field(default_factory=Timing)
    waited_s: float = 0.0
    cached_tokens: int = 0
    _pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What was said."""
        return "".join(self._pieces)

    def add(self, event: ServerEvent) -> None:
        """Take in the next event of this answer."""
        self._pieces.append(event.text)
        self.logprobs += event.logprobs
        for piece in event.tool_calls:
            while len(self.calls) <= piece.index:
                self.calls.append(Call())
            call = self.calls[piece.index]
            call.id += piece.id
            call.name += piece.name
            call.arguments += piece.arguments
        if event.finish_reason is not None:
            self.finish_reason = event.finish_reason
            self.usage = event.usage or self.usage
            self.timing = event.timing or self.timing
            self.waited_s = event.waited_s
            self.cached_tokens = event.cached_tokens


async def collect(events: AsyncIterator[ServerEvent], count: int) -> list[Answer]:
    """All answers, whole, by index."""
    answers = [Answer() for _ in range(count)]
    async for event in events:
        answers[event.index].add(event)
    check_ended(answers)
    return answers


def check_ended(answers: Sequence[Answer]) -> None:
    """Every answer ends, and says why; one that does not is a fault of ours and no short answer.

    Raises:
        InternalFailure: One has not ended.
    """
    if any(answer.finish_reason is None for answer in answers):
        raise InternalFailure("the engine left an answer unfinished")


def reason(found: FinishReason | None) -> str:
    """Why an answer ended, in OpenAI's words."""
    return _REASONS.get(found or "length", found or "length")


def stop_reason(found: FinishReason | None) -> dict[str, str]:
    """Our own word for the end beside OpenAI's, where that says less; a field other servers have as well."""
    return {"stop_reason": found} if found in _REASONS and found else {}


@dataclass(frozen=True)
class Counts:
    """Tokens of one request; a prompt with several answers counts once."""

    prompt: int
    completion: int
    image: int
    audio: int
    cached: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.prompt + self.completion

    def as_usage(self) -> dict[str, Any]:
        """OpenAI's `usage`; `image_tokens` is ours."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.total,
            "prompt_tokens_details": {
                "cached_tokens": self.cached,
                "audio_tokens": self.audio,
                "image_tokens": self.image,
            },
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }


def count(answers: Sequence[Answer], choices: int = 1) -> Counts:
    """Tokens of a request's answers, `choices` of them to each prompt."""
    first = answers[::choices]
    return Counts(
        prompt=sum(answer.usage.prompt_tokens for answer in first),
        completion=sum(answer.usage.completion_tokens for answer in answers),
        image=sum(answer.usage.image_tokens for answer in first),
        audio=sum(answer.usage.audio_tokens for answer in first),
        cached=sum(answer.cached_tokens for answer in first),
    )


def token_logprob(scored: ScoredToken) -> dict[str, Any]:
    """A token with its candidates, as chat completions and responses show it."""
    return _candidate(scored.token) | {"top_logprobs": [_candidate(other) for other in scored.top]}


def _candidate(found: Candidate) -> dict[str, Any]:
    # JSON has no way to say minus infinity; OpenAI shows such a token as -9999.
    return {
        "token": found.text,
        "logprob": max(found.logprob, -9999.0),
        "bytes": list(found.token_bytes),
    }
