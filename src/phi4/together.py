"""Two things at once: for what leaves Python's lock alone, such as opening sessions and reading files.

head, decoder = at_once(open_head, open_decoder)
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

First = TypeVar("First")
Second = TypeVar("Second")


def at_once(first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
    """Call both and wait for both.

    Args:
        first: Runs in the caller's thread.
        second: Runs in a thread of its own.

    Raises:
        Exception: What `first` raises; if it raises nothing, what `second` raises: as one after the other.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="phi4-at-once") as beside:
        running = beside.submit(second)
        return first(), running.result()
