"""Limits of the machine without any model: how fast memory is read, and how fast numpy multiplies.

    with Reader() as reader:
        bytes_per_s = reader.rate(threads=2)

Each function takes one sample; repeating and taking medians is the caller's.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import numpy as np
from numpy.typing import NDArray

ARRAY_BYTES = 256 << 20
"""Several times the largest cache of a processor, so that memory is read and not a cache."""
SIDE = 1024
"""Rows and columns of the matrices that are multiplied: large enough for full speed, done in milliseconds."""


class Reader:
    """A large array to read; a context, which frees it.

    Args:
        nbytes: Its size.
    """

    def __init__(self, nbytes: int = ARRAY_BYTES) -> None:
        self._values: NDArray[np.int32] = np.ones(nbytes // 4, np.int32)

    def rate(self, threads: int) -> float:
        """Read the array once, a part for each thread; returns bytes a second.

        The largest whole number is looked for: adding floats is slower than reading them, on one thread by
        half, comparing integers is not.
        """
        parts = np.array_split(self._values, threads)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(np.max, [part[:1] for part in parts]))  # threads are started before the clock is
            start = time.perf_counter()
            list(pool.map(np.max, parts))
            return self._values.nbytes / (time.perf_counter() - start)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._values = np.zeros(1, np.int32)


def thread_counts(most: int) -> tuple[int, ...]:
    """1, 2, 4 and so on up to `most`, and `most` itself."""
    counts = [1]
    while 2 * counts[-1] < most:
        counts.append(2 * counts[-1])
    return (*counts, most) if most > 1 else (1,)


def numpy_matmul_rate() -> float:
    """Multiply two float32 matrices once with numpy; returns operations a second."""
    left, right = np.ones((SIDE, SIDE), np.float32), np.ones((SIDE, SIDE), np.float32)
    start = time.perf_counter()
    left @ right
    return 2 * SIDE**3 / (time.perf_counter() - start)
