"""One answer in the words of the routes: text, pieces of tool calls, log-probabilities, the end.

The engine leaves calls in the text of a request with tools; a parser takes them out here as they come, so
that a client reads arguments while they are written. Whatever dialect a call is in, it is of a tool on offer
and its arguments fit: native ones are written under the grammar, others are judged by it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from phi4.engine.answering.grammar import Grammar
from phi4.engine.structured.tool_grammar import ToolCallGrammar
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.processing.tool_parser import CallsFinished, ParserEvent, TextDelta, ToolCallParser
from phi4.processing.tool_stream import ToolCallDelta as ParsedPiece
from phi4.server.worker.values import Candidate, ScoredToken, ServerEvent, ToolCallDelta
from phi4.types import Completion, Delta, TokenLogprob


class Wording:
    """What one answer has said.

    Args:
        index: What its events carry.
        tokenizer: Gives the words of tokens.
        tool_names: Functions the prompt offers.
        grammar: What the answer is written under; unless it is one of calls, the answer is text.
    """

    def __init__(
        self,
        index: int,
        tokenizer: Phi4Tokenizer,
        tool_names: tuple[str, ...] = (),
        grammar: Grammar | None = None,
    ) -> None:
        self._index = index
        self._tokenizer = tokenizer
        self._parser: ToolCallParser | None = None
        if isinstance(grammar, ToolCallGrammar):
            self._parser = ToolCallParser(
                tool_names,
                stream=True,
                dialects=grammar.free,
                judge=grammar.fits,
                most=grammar.most_calls,
            )
        self._called = False

    def say(self, delta: Delta) -> ServerEvent | None:
        """The event for a piece of the answer; None = nothing in it can be shown yet."""
        text: str = delta.text
        calls: tuple[ToolCallDelta, ...] = ()
        if self._parser is not None:
            found = self._parser.push(delta.text)
            if delta.completion is not None:
                found += self._parser.flush()
            text, calls = self._parsed(found)
        logprobs = tuple(self._scored(token) for token in delta.logprobs)
        if delta.completion is not None:
            return self._end(text, calls, logprobs, delta.completion)
        if not (text or calls or logprobs):
            return None
        return ServerEvent(self._index, text, calls, logprobs)

    def _end(
        self,
        text: str,
        calls: tuple[ToolCallDelta, ...],
        logprobs: tuple[ScoredToken, ...],
        completion: Completion,
    ) -> ServerEvent:
        reason = completion.finish_reason
        if reason == "stop" and self._called:
            reason = "tool_calls"
        return ServerEvent(
            self._index,
            text,
            calls,
            logprobs,
            reason,
            completion.usage,
            completion.timing,
            completion.usage.cached_tokens,
            completion.adapters,
        )

    def _parsed(self, events: Iterable[ParserEvent]) -> tuple[str, tuple[ToolCallDelta, ...]]:
        text: list[str] = []
        calls: list[ToolCallDelta] = []
        for event in events:
            if isinstance(event, TextDelta):
                text.append(event.text)
            elif isinstance(event, CallsFinished):
                self._called = True
            else:
                calls.append(_named(event))
        return "".join(text), tuple(calls)

    def _scored(self, token: TokenLogprob) -> ScoredToken:
        return ScoredToken(
            self._candidate(token.token_id, token.logprob),
            tuple(self._candidate(token_id, logprob) for token_id, logprob in token.top),
        )

    def _candidate(self, token_id: int, logprob: float) -> Candidate:
        content = self._tokenizer.token_bytes(token_id)
        return Candidate(int(token_id), content.decode("utf-8", errors="replace"), content, float(logprob))


def _named(piece: ParsedPiece) -> ToolCallDelta:
    """A piece of a call. The parser numbers calls of one answer; clients keep those of a conversation."""
    name = f"call_{secrets.token_hex(12)}" if piece.id else ""
    return ToolCallDelta(piece.index, name, piece.name, piece.arguments)
