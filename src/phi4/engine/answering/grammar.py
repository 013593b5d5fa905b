"""What the engine asks of a grammar: which tokens may come next, and that one has come.

`phi4.engine.structured.compiler` makes grammars of schemas and patterns; a test or a caller may bring any
object with these members. One object serves one answer.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from phi4.shapes import BoolArray
from phi4.types import FinishReason


class Grammar(Protocol):
    """The rules of one answer, as far as it has come.

    `allowed` and `accept` may raise a `Phi4Error`: the request then fails with it, and no other does.
    """

    @property
    def finished(self) -> bool:
        """Whether the answer is complete and nothing may follow: the engine then ends it."""
        ...

    def allowed(self) -> BoolArray | None:
        """Tokens that may be drawn next, `[V]` of the runner's vocabulary, True = may come; None = all.

        Ids that end a turn are among them where the answer may end. Asked once for each place; the
        engine keeps the array until the answer has grown.
        """
        ...

    def accept(self, token_id: int) -> None:
        """The answer grew by this token. Never called with an id that ends a turn."""
        ...


@runtime_checkable
class TriggeredGrammar(Grammar, Protocol):
    """A grammar that constrains nothing until certain tokens come: an answer in free text with calls in it.

    While `allowed` gives None its answer may be guessed ahead like any other, up to the first trigger.
    """

    @property
    def triggers(self) -> Collection[int]:
        """Ids behind which `allowed` may give a mask."""
        ...


@dataclass(frozen=True)
class GrammarRule:
    """The stop rule of a constrained answer: tells its grammar each token, ends it when that is finished."""

    grammar: Grammar
    stop_ids: Collection[int]

    def check(self, token_id: int, num_generated: int) -> FinishReason | None:
        """Why the answer ends with `token_id`; None = not because of the grammar."""
        if token_id in self.stop_ids:
            return None
        self.grammar.accept(token_id)
        return "stop" if self.grammar.finished else None
