"""Scorers: an answer beside what was expected becomes errors out of a length.

Every scorer returns an `Outcome`, so a right-or-wrong task (one error out of one) and an error-rate
task (edits out of the reference's length) add up the same way: rate = sum of errors / sum of
lengths, score = 1 - rate, not below 0. How texts, sums and calls are compared is `phi4.verify`'s
work; there is no table of synonyms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from phi4.types import Completion, ToolCall
from phi4.verify import character_errors, check_sum, same_call, word_errors


@dataclass(frozen=True)
class Outcome:
    """Errors counted in one answer.

    Attributes:
        errors: Edits or wrong answers; may exceed `length` when an answer is much too long.
        length: What they are out of: characters, words, or 1 for right-or-wrong tasks.
    """

    errors: int
    length: int

    @property
    def right(self) -> bool:
        """True when nothing was wrong."""
        return self.errors == 0


@dataclass(frozen=True)
class Expected:
    """What a right answer is: its text, or the calls it makes.

    Attributes:
        text: The right answer.
        tool_calls: The right calls; the text is then empty.
        accepted: Other answers that are right too.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    accepted: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """Every accepted text, the one to show first."""
        return (self.text, *self.accepted)

    @property
    def shown(self) -> str:
        """The right answer in one line, for people."""
        return self.text or calls_as_text(self.tool_calls)


Scorer = Callable[[Completion, Expected], Outcome]


def character_error_rate(answer: Completion, expected: Expected) -> Outcome:
    """Character edits against the nearest accepted line; case and punctuation count."""
    return _nearest([character_errors(text, answer.text) for text in expected.texts])


def word_error_rate(answer: Completion, expected: Expected) -> Outcome:
    """Word edits against the nearest accepted transcript; case and punctuation do not count."""
    return _nearest([word_errors(text, answer.text) for text in expected.texts])


def exact_answer(answer: Completion, expected: Expected) -> Outcome:
    """Right or wrong: an accepted answer and nothing beside it; case and a closing full stop do not count."""
    return Outcome(int(_line(answer.text) not in [_line(text) for text in expected.texts]), 1)


def exact_tool_calls(answer: Completion, expected: Expected) -> Outcome:
    """Right or wrong: the same functions in the same order with equal arguments.

    Where no call is expected, the expected text has to be given and no call made.
    """
    if not expected.tool_calls:
        return Outcome(1, 1) if answer.tool_calls else exact_answer(answer, expected)
    same = len(answer.tool_calls) == len(expected.tool_calls) and all(
        same_call(wanted, given) for wanted, given in zip(expected.tool_calls, answer.tool_calls, strict=True)
    )
    return Outcome(int(not same), 1)


def exact_sum(answer: Completion, expected: Expected) -> Outcome:
    """Right or wrong: the answer of a worked sum and every step before it, line by line."""
    return Outcome(int(not check_sum(expected.text, answer.text).steps_ok), 1)


def sum_answer(answer: Completion, expected: Expected) -> Outcome:
    """Right or wrong: the line "answer: N" of a worked sum holds the right number."""
    return Outcome(int(not check_sum(expected.text, answer.text).answer_ok), 1)


def calls_as_text(calls: Sequence[ToolCall]) -> str:
    """Tool calls in one line: `name(argument=value, ...)`, joined by semicolons."""
    return "; ".join(f"{c.name}({', '.join(f'{k}={v!r}' for k, v in c.arguments.items())})" for c in calls)


def _line(text: str) -> str:
    """One line in one case, without a closing mark."""
    return " ".join(text.split()).casefold().rstrip(".!")


def _nearest(counts: Sequence[tuple[int, int]]) -> Outcome:
    """The accepted answer with the smallest rate; a reference without words counts as one."""
    outcomes = [Outcome(errors, max(length, 1)) for errors, length in counts]
    return min(outcomes, key=lambda outcome: outcome.errors / outcome.length)
