"""Hidden states to what a row wants: drawn tokens, checked drafts, log-probabilities of targets.

The draw is `phi4.engine.drawing.sampler` itself. Logits exist a bounded number of rows at a time and never
leave this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from phi4.engine.drawing.sampler import draw, edited, log_softmax, top_candidates
from phi4.engine.runner import Draw, RowResult, Score, no_result
from phi4.onnx.serving.forward import Work
from phi4.shapes import FloatArray, IntArray

MAX_LOGIT_ROWS = 64
"""Rows of logits alive at once; 64 released rows in fp32 take 51 MB."""
Head = Callable[[FloatArray], FloatArray]
"""`[R, D]` hidden states to `[R, V]` logits."""


def row_results(head: Head, work: Sequence[Work], picked: Sequence[FloatArray]) -> list[RowResult]:
    """Give every row what it wants. Accepted drafts stay in the row's sequence, the others are forgotten.

    Args:
        head: The head.
        work: Rows whose positions have been appended.
        picked: For each, `[num_wanted, D]` hidden states of its last positions.
    """
    rows = _logit_rows(head, np.concatenate(picked))
    return [_result(item, rows) for item in work]


def _logit_rows(head: Head, hidden: FloatArray) -> Iterator[FloatArray]:
    for first in range(0, len(hidden), MAX_LOGIT_ROWS):
        yield from head(hidden[first : first + MAX_LOGIT_ROWS])


def _result(item: Work, rows: Iterator[FloatArray]) -> RowResult:
    """Take this row's logits from `rows`. A row with drafts comes alone, so it may leave some there."""
    want = item.row.want
    if isinstance(want, Draw):
        return _drawn(item, want, rows)
    return _scored(want, rows) if isinstance(want, Score) else no_result()


def _drawn(item: Work, want: Draw, rows: Iterator[FloatArray]) -> RowResult:
    drafts, sequence = item.row.drafts, item.sequence
    assert not (drafts and want.allowed is not None)
    sequence.length -= len(drafts)
    tokens: list[int] = []
    judged: list[tuple[float, IntArray, FloatArray]] = []
    for draft in (*drafts, None):
        logits = next(rows)
        scores = edited(logits, want.bias, want.scale)
        token = draw(scores, want.sampling, sequence.length, want.allowed)
        tokens.append(token)
        if want.num_top is not None:
            judged.append(_judged(logits, token, want.num_top))
        if token != draft:
            break
        sequence.length += 1
    found, nothing = np.array(tokens, np.int64), no_result()
    if not judged:
        return replace(nothing, token_ids=found)
    own, ids, values = zip(*judged, strict=True)
    return RowResult(found, np.array(own, np.float32), np.stack(ids), np.stack(values), nothing.is_best)


def _judged(logits: FloatArray, token: int, num_top: int) -> tuple[float, IntArray, FloatArray]:
    """The model's own log-probability of a token, and its best candidates."""
    own = log_softmax(logits)
    return (float(own[token]), *top_candidates(own, num_top))


def _scored(want: Score, rows: Iterator[FloatArray]) -> RowResult:
    logprobs: list[float] = []
    best: list[bool] = []
    for target in np.asarray(want.targets).tolist():
        logits = next(rows)
        logprobs.append(float(log_softmax(logits)[target]))
        best.append(int(np.argmax(logits)) == target)
    nothing = no_result()
    return RowResult(
        nothing.token_ids,
        np.array(logprobs, np.float32),
        nothing.top_ids,
        nothing.top_logprobs,
        np.array(best, np.bool_),
    )
