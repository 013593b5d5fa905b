"""Samples: what a task asks and what a right answer is, made from held-out records.

A `Sample` is all that scorers and controls know; records of `phi4.data` are turned into samples in
one place (`phi4.evals.tasks`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from phi4.evals.scorers import Expected
from phi4.types import Message, ToolSpec


@dataclass(frozen=True)
class Sample:
    """One question with its right answer.

    Attributes:
        id: Names the record it was made from: task, split and index.
        messages: The prompt, up to and including the last user turn.
        expected: The right answer.
        tools: Functions offered to the model.
        facts: How the record was made; extras choose samples by them, the model never sees them.
    """

    id: str
    messages: tuple[Message, ...]
    expected: Expected
    tools: tuple[ToolSpec, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
