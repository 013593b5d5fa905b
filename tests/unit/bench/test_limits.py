"""Limits are positive rates of real work, and leave nothing behind."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from phi4.bench.limits import Reader, numpy_matmul_rate, thread_counts
from phi4.bench.products import PRODUCTS, open_products
from phi4.errors import MissingExtra


@pytest.mark.parametrize(
    ("most", "counts"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (4, (1, 2, 4)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8))],
)
def test_thread_counts_double_and_end_with_all(most: int, counts: tuple[int, ...]) -> None:
    assert thread_counts(most) == counts


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_reading_is_a_rate_for_any_number_of_threads(threads: int) -> None:
    with Reader(1 << 20) as reader:
        assert reader.rate(threads) > 0
    assert reader._values.nbytes < 100, "the array is freed"


def test_multiplying_is_a_rate() -> None:
    assert numpy_matmul_rate() > 0


def test_products_run_at_every_precision_and_their_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with open_products(threads=1) as products:
        assert list(products) == list(PRODUCTS.values())
        assert all(rate() > 0 for rate in products.values())
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_products_without_the_extra_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "phi4.onnx.building", raising=False)
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    with pytest.raises(MissingExtra, match="export"), open_products(threads=1):
        pass
