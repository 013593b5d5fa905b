"""KL divergence and best tokens are those of the definition, however the vocabulary comes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from phi4.onnx.calibrate import divergence
from phi4.onnx.calibrate.divergence import Divergence, compare_heads, summed_up
from phi4.shapes import FloatArray


def logits(rows: int, size: int, seed: int = 0, scale: float = 3.0) -> FloatArray:
    return np.asarray(scale * np.random.default_rng(seed).standard_normal((rows, size)), np.float32)


def defined(expected: FloatArray, found: FloatArray) -> Any:
    p, q = (x.astype(np.float64) - x.max(1, keepdims=True) for x in (expected, found))
    p, q = (x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (p, q))
    return (np.exp(p) * (p - q)).sum(1)


def in_slices(expected: FloatArray, found: FloatArray, width: int) -> Divergence:
    sums = Divergence(len(expected))
    for first in range(0, expected.shape[1], width):
        sums.add(expected[:, first : first + width], found[:, first : first + width])
    return sums


@pytest.mark.parametrize("width", [1, 7, 64, 500])
@pytest.mark.parametrize("shift", [0.0, 500.0, -500.0])
def test_sums_over_slices_equal_the_definition(width: int, shift: float) -> None:
    expected, found = logits(5, 500), logits(5, 500, 1) + np.float32(shift)
    sums = in_slices(expected, found, width)
    np.testing.assert_allclose(sums.nats, defined(expected, found), rtol=2e-4, atol=2e-4)
    np.testing.assert_array_equal(sums.same_best, expected.argmax(1) == found.argmax(1))


def test_near_distributions_are_told_apart_from_equal_ones() -> None:
    expected = logits(4, 1000)
    near = expected + logits(4, 1000, 1, 0.01)
    sums = in_slices(expected, near, 128)
    np.testing.assert_allclose(sums.nats, defined(expected, near), rtol=0.05)
    same = in_slices(expected, expected, 128)
    assert (same.nats < 1e-9).all() and same.same_best.all()
    assert (sums.nats > 1e-6).all()


def test_adding_the_same_to_all_logits_changes_nothing() -> None:
    expected, found = logits(3, 200), logits(3, 200, 1)
    plain, moved = (in_slices(e, found, 50).nats for e in (expected, expected + np.float32(8)))
    np.testing.assert_allclose(plain, moved, atol=1e-4)


def test_rows_of_several_are_summed_up_together() -> None:
    expected, found = logits(200, 40), logits(200, 40, 1)
    whole = in_slices(expected, found, 40)
    parts = [in_slices(expected[r], found[r], 40) for r in (slice(0, 150), slice(150, 200))]
    together = summed_up(parts)
    assert together.positions == 200 and together == whole.fidelity
    assert together.nats == pytest.approx(whole.nats.mean())
    assert together.agreement == whole.same_best.mean() and together.worst_nats > together.nats
    assert set(together.as_dict()) == {"nats", "worst_nats", "agreement", "positions"}


def test_heads_are_compared_a_slice_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "VOCABULARY_AT_ONCE", 33)
    head, exact = logits(100, 16, 2, 1.0), logits(6, 16, 3, 1.0)
    others = {"near": exact + logits(6, 16, 4, 0.1), "same": exact}
    found = compare_heads(head.astype(np.float16), exact, others)
    stored = head.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(
        found["near"].nats, defined(exact @ stored.T, others["near"] @ stored.T), rtol=1e-3, atol=1e-6
    )
    assert (found["same"].nats < 1e-9).all()
