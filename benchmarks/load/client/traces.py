"""One request as its client saw it, and figures of many of them: arithmetic on clocks, nothing else.

A percentile is a value that was measured (nearest rank), never one between two. A first token is timed from
when its request was due: a client that is late to send makes figures worse, not better.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

OK = 200
MS = 1000.0


@dataclass(frozen=True)
class Trace:
    """What happened to one request; clocks are `time.perf_counter`.

    Attributes:
        due_s: When it was to be sent.
        sent_s: When it was.
        pieces_s: When pieces of the answer arrived that hold text or a part of a call.
        ended_s: When the answer was whole, or what came in its place.
        status: Of HTTP; 0 = there was no answer.
        tokens: Of the answer, as the server counts them.
        prompt_tokens: Of the prompt, likewise.
        error: Why the answer is not whole; empty = it is.
    """

    due_s: float
    sent_s: float
    pieces_s: tuple[float, ...]
    ended_s: float
    status: int
    tokens: int = 0
    prompt_tokens: int = 0
    error: str = ""

    @property
    def whole(self) -> bool:
        """Whether it was answered to the end."""
        return self.status == OK and not self.error

    @property
    def seconds(self) -> float:
        """From when it was due to its end."""
        return self.ended_s - self.due_s


def percentile(values: Iterable[float], percent: float) -> float:
    """The least value that so many percent of all do not exceed.

    Raises:
        ValueError: There are no values.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("there are no values to take a percentile of")
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def first_tokens(traces: Iterable[Trace]) -> list[float]:
    """Seconds to the first piece of each answer."""
    return [trace.pieces_s[0] - trace.due_s for trace in traces if trace.pieces_s]


def gaps(traces: Iterable[Trace]) -> list[float]:
    """Seconds between pieces of the same answer, of all answers."""
    return [after - before for trace in traces for before, after in pairwise(trace.pieces_s)]


def steady_rate(traces: Sequence[Trace]) -> float:
    """Tokens a second while every answer is being written: from the last first piece to the first last one.

    A piece may hold several tokens or a part of one; each of an answer's pieces counts as the same share.

    Raises:
        ValueError: There was no such time.
    """
    began = max(trace.pieces_s[0] for trace in traces)
    ended = min(trace.pieces_s[-1] for trace in traces)
    if ended <= began:
        raise ValueError("the first answer had ended before the last one began; ask for longer answers")
    tokens = sum(
        trace.tokens / len(trace.pieces_s) * sum(began < piece <= ended for piece in trace.pieces_s)
        for trace in traces
    )
    return tokens / (ended - began)


def met_deadline(traces: Iterable[Trace], ended_s: float, deadline_s: float) -> int:
    """How many answers were whole by then, each within its time from when it was due."""
    return sum(trace.whole and trace.ended_s <= ended_s and trace.seconds <= deadline_s for trace in traces)


def outcomes(traces: Iterable[Trace]) -> dict[str, int]:
    """Requests by what became of them: "whole", a status, or the error of a broken answer."""
    found: dict[str, int] = {}
    for trace in traces:
        name = "whole" if trace.whole else trace.error or str(trace.status)
        found[name] = found.get(name, 0) + 1
    return found


def summary(traces: Sequence[Trace]) -> dict[str, Any]:
    """Figures of answers that were asked for in one go, by users who ask again when they are answered."""
    whole = [trace for trace in traces if trace.whole]
    seconds = max(trace.ended_s for trace in traces) - min(trace.sent_s for trace in traces)
    tokens = sum(trace.tokens for trace in whole)
    waits, between = first_tokens(whole), gaps(whole)
    pieces = sum(len(trace.pieces_s) for trace in whole)
    return {
        "seconds": seconds,
        "requests": len(traces),
        "outcomes": outcomes(traces),
        "tokens": tokens,
        "pieces": pieces,
        "prompt_tokens": sum(trace.prompt_tokens for trace in whole),
        "tokens_per_s": tokens / seconds,
        "requests_per_s": len(whole) / seconds,
        **spread("first_token", waits),
        **spread("gap", between),
    }


def spread(name: str, seconds: Sequence[float]) -> dict[str, float | None]:
    """The middle and the worst but one in a hundred, in milliseconds; None where nothing was measured."""
    return {
        f"{name}_p{percent}_ms": MS * percentile(seconds, percent) if seconds else None
        for percent in (50, 99)
    }
