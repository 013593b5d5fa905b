"""Limits are the work done by the time it took, and leave nothing behind."""

from __future__ import annotations

import sys
import tempfile
import time
from itertools import count
from pathlib import Path

import pytest

from phi4.bench.limits import SIDE, Reader, numpy_matmul_rate, thread_counts
from phi4.bench.products import PRODUCTS, ROWS, open_products
from phi4.errors import MissingExtra

TICK_S = 0.25


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by `TICK_S` whenever it is looked at, so that rates are known beforehand."""
    clock = count()
    monkeypatch.setattr(time, "perf_counter", lambda: TICK_S * next(clock))


@pytest.mark.parametrize(
    ("most", "counts"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (4, (1, 2, 4)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8))],
)
def test_thread_counts_double_and_end_with_all(most: int, counts: tuple[int, ...]) -> None:
    assert thread_counts(most) == counts


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_reading_counts_every_byte_once_for_any_number_of_threads(threads: int, ticking: None) -> None:
    with Reader(1 << 20) as reader:
        assert reader.rate(threads) == (1 << 20) / TICK_S
    assert reader._values.nbytes < 100, "the array is freed"


def test_multiplying_counts_two_operations_for_each_product(ticking: None) -> None:
    assert numpy_matmul_rate() == 2 * SIDE**3 / TICK_S


def test_products_run_at_every_precision_and_their_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ticking: None
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with open_products(threads=1) as products:
        assert list(products) == list(PRODUCTS.values())
        assert [rate() for rate in products.values()] == [2 * ROWS * SIDE**2 / TICK_S] * len(PRODUCTS)
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_products_without_the_extra_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "phi4.onnx.building", raising=False)
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    with pytest.raises(MissingExtra, match="export"), open_products(threads=1):
        pass
