"""Verify: what a machine can check about an answer: sums, tool calls, and how near a text is to another.

Used by data (to make answers), by evals (to score them) and by rewards. No model, no torch.
"""

from __future__ import annotations

from phi4.verify.sums import SumCheck, check_sum, final_answer, worked_lines
from phi4.verify.textmatch import character_errors, edit_distance, normalise, word_errors
from phi4.verify.toolcalls import check_arguments, check_call, same_call

__all__ = [
    "SumCheck",
    "character_errors",
    "check_arguments",
    "check_call",
    "check_sum",
    "edit_distance",
    "final_answer",
    "normalise",
    "same_call",
    "word_errors",
    "worked_lines",
]
