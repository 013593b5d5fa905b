"""Out of memory as our error, whichever allocator says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from phi4.errors import OutOfMemory


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of torch is an allocator's: CPUs have no error class for it, only words."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def memory_errors(what: str, advice: str) -> Iterator[None]:
    """Turn an allocator's failure inside the `with` into `OutOfMemory`.

    Args:
        what: What ran out of memory, as the beginning of a sentence.
        advice: What to do.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
        raise OutOfMemory(f"{what} ran out of memory ({reason}); {advice}") from error
