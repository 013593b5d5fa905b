"""How far one next-token distribution is from another: Kullback-Leibler divergence and the best token.

    found = Divergence(rows=64)
    found.add(expected_logits, other_logits)      # [64, V], or slice of the vocabulary after slice
    found.nats.mean(), found.same_best.mean()

Full logits of many positions would take gigabytes, so sums run along with the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phi4.shapes import AnyArray, BoolArray, FloatArray

VOCABULARY_AT_ONCE = 8192
"""Rows of the head multiplied together; 100 MB in the released model as float32."""
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Fidelity:
    """How well a form of a model keeps the next-token distributions of the exact one.

    Attributes:
        nats: Mean KL divergence D(exact || form) of the judged positions.
        worst_nats: Its 99th percentile.
        agreement: Share of positions with the same best token, 0 to 1.
        positions: How many were judged.
    """

    nats: float
    worst_nats: float
    agreement: float
    positions: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dict(vars(self))


class Divergence:
    """Of rows of logits, which come in slices of the vocabulary.

    Args:
        rows: How many rows.
    """

    def __init__(self, rows: int) -> None:
        self._expected = _Exponentials(rows)
        self._found = _Exponentials(rows)
        self._difference = np.zeros(rows, np.float64)

    def add(self, expected: FloatArray, found: FloatArray) -> None:
        """The next slice `[rows, v]` of both."""
        shrunk, shares = self._expected.add(expected)
        self._difference = self._difference * shrunk + (shares * (expected - found)).sum(axis=1, dtype="f8")
        self._found.add(found)

    @property
    def nats(self) -> Doubles:
        """`[rows]` D(expected || found) = sum p (log p - log q); never below 0 but for rounding."""
        mean = self._difference / self._expected.total
        nats = mean - self._expected.log_total + self._found.log_total
        return np.asarray(np.maximum(nats, 0.0), np.float64)

    @property
    def same_best(self) -> BoolArray:
        """`[rows]`, True = both have the same best token."""
        return np.asarray(self._expected.best == self._found.best, np.bool_)

    @property
    def fidelity(self) -> Fidelity:
        """Summed up over all rows."""
        return summed_up([self])


def summed_up(parts: list[Divergence]) -> Fidelity:
    """The rows of several, together."""
    nats = np.concatenate([part.nats for part in parts])
    same = np.concatenate([part.same_best for part in parts])
    return Fidelity(float(nats.mean()), float(np.percentile(nats, 99)), float(same.mean()), len(nats))


def compare_heads(
    head: AnyArray, expected: FloatArray, others: Mapping[str, FloatArray]
) -> dict[str, Divergence]:
    """Compare the distributions that one head makes of different hidden states.

    Args:
        head: `[V, D]` in any float type; read a slice at a time.
        expected: `[n, D]` states of the exact model, behind the last norm.
        others: `[n, D]` of each form of it.
    """
    found = {name: Divergence(len(expected)) for name in others}
    for _, part in head_slices(head):
        exact = expected @ part
        for name, hidden in others.items():
            found[name].add(exact, hidden @ part)
    return found


def head_slices(head: AnyArray) -> Iterator[tuple[slice, FloatArray]]:
    """Slices of the vocabulary with their part `[D, v]` of a head `[V, D]`, widened to float32."""
    for first in range(0, len(head), VOCABULARY_AT_ONCE):
        part = slice(first, first + VOCABULARY_AT_ONCE)
        yield part, np.asarray(head[part], np.float32).T


class _Exponentials:
    """Sums of exp(logit) of rows that come in slices, and the largest logit of each."""

    def __init__(self, rows: int) -> None:
        self.most = np.full(rows, -np.inf, np.float32)
        self.total = np.zeros(rows, np.float64)
        self.best = np.zeros(rows, np.int64)
        self._width = 0

    @property
    def log_total(self) -> Doubles:
        return np.asarray(self.most + np.log(self.total), np.float64)

    def add(self, logits: FloatArray) -> tuple[Doubles, FloatArray]:
        """How much all earlier sums shrink, and exp(logit - most) of this slice."""
        place = logits.argmax(axis=1)
        peak = logits[np.arange(len(logits)), place]
        higher = peak > self.most
        self.best = np.where(higher, place + self._width, self.best)
        self._width += logits.shape[1]
        most = np.maximum(self.most, peak)
        shrunk = np.exp(self.most.astype(np.float64) - most)
        shares = np.exp(logits - most[:, None])
        self.total = self.total * shrunk + shares.sum(axis=1, dtype="f8")
        self.most = most
        return shrunk, shares
