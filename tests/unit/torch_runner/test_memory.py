"""Allocators' failures become our error; everything else passes."""

from __future__ import annotations

import pytest
import torch

from phi4.errors import OutOfMemory
from phi4.torch_runner.memory import memory_errors


def test_allocation_beyond_the_address_space_is_our_error_with_advice() -> None:
    with (
        pytest.raises(OutOfMemory, match=r"^a step ran out of memory .*; run fewer"),
        memory_errors("a step", "run fewer"),
    ):
        torch.empty(1 << 50, dtype=torch.uint8)


def test_error_of_a_device_is_our_error() -> None:
    with pytest.raises(OutOfMemory, match="CUDA out of memory"), memory_errors("a step", "run fewer"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nand much more")


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(RuntimeError, match="shape"), memory_errors("a step", "run fewer"):
        torch.ones(2, 3) @ torch.ones(2, 3)
