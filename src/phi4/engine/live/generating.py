"""A sequence that grows by drawn tokens: one a step, and as many more as were guessed right."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field

from phi4.engine.answering.answer import Answer
from phi4.engine.answering.grammar import Grammar, TriggeredGrammar
from phi4.engine.drawing.drafting import PromptLookup
from phi4.engine.drawing.logit_edits import LogitEdits
from phi4.engine.events import Event, Progress
from phi4.engine.live.sequence import LiveSequence
from phi4.engine.runner import Draw, Nothing, PackedSampling, RowResult, Want
from phi4.errors import InvalidRequest
from phi4.shapes import BoolArray
from phi4.types import Completion, Delta, TokenLogprob, ToolCall, Usage


@dataclass(eq=False)
class Generating(LiveSequence):
    """A request for an answer.

    Attributes:
        sampling: How to draw.
        max_new_tokens: Longest answer.
        num_top: Candidates to report with each token; None = report nothing.
        edits: Its bias and penalties.
        lookup: Guesses of what follows; None = it has none.
        grammar: What may be drawn; None = anything. Told about draws by a rule of the answer.
        answer: What the caller sees.
    """

    sampling: PackedSampling = field(default_factory=PackedSampling)
    max_new_tokens: int = 1
    num_top: int | None = None
    lookup: PromptLookup | None = None
    grammar: Grammar | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)
    edits: LogitEdits = field(kw_only=True)
    answer: Answer = field(kw_only=True)
    _mask: BoolArray | None = field(default=None, repr=False)
    _asked: int = field(default=-1, repr=False)

    @property
    def target_length(self) -> int:
        return self.prompt_length + len(self.tokens)

    @property
    def rope_length(self) -> int:
        return self.target_length

    @property
    def final_length(self) -> int:
        return self.prompt_length + self.max_new_tokens

    @property
    def most_copied(self) -> int:
        return self.target_length - 1

    def want(self, stop: int) -> Want:
        if stop < self.target_length:
            return Nothing()
        return Draw(self.sampling, self.num_top, self._allowed(), self.edits.bias(), self.edits.scale())

    def guess(self, most: int) -> tuple[int, ...]:
        # The last token of the longest answer is drawn, never fed.
        room = self.final_length - 1 - self.target_length
        if self.lookup is None or self.pending != 1 or not self.tokens or room < 1:
            return ()
        drafts = self.lookup.guess(min(most, room))
        if isinstance(self.grammar, TriggeredGrammar):
            free = drafts if self._allowed() is None else ()
            triggers = self.grammar.triggers
            drafts = tuple(itertools.takewhile(lambda token: token not in triggers, free))
        return drafts

    def _allowed(self) -> BoolArray | None:
        """What the grammar allows at this place, asked once."""
        if self.grammar is not None and self._asked != len(self.tokens):
            self._asked, self._mask = len(self.tokens), self.grammar.allowed()
            if self._mask is not None and not self._mask.any():
                raise InvalidRequest(
                    "the grammar of this request allows no token at this place; correct its schema or pattern"
                )
        return self._mask

    def judged(self, guessed: int, right: int) -> None:
        super().judged(guessed, right)
        if self.lookup is not None:
            self.lookup.judged(guessed, right)

    def progress(self) -> Progress:
        return Progress(self.fed, self.target_length, again=bool(self.tokens))

    def take(self, result: RowResult) -> Event:
        if not self.tokens:
            self.clock.first = time.perf_counter()
        said = ""
        called: list[ToolCall] = []
        first = len(self.tokens)
        for token in result.token_ids.tolist():
            self.tokens.append(token)
            self.edits.push(token)
            if self.lookup is not None:
                self.lookup.push(token)
            text, calls = self.answer.push(token)
            said += text
            called += calls
            if self.answer.finished:
                break
        judged = self._judge(result, len(self.tokens) - first)
        completion = self.completion() if self.answer.finished else None
        return Event(self.id, delta=Delta(said, tuple(called), completion, judged))

    def _judge(self, result: RowResult, count: int) -> tuple[TokenLogprob, ...]:
        """Log-probabilities of the first `count` tokens of a result, when they are wanted."""
        if self.num_top is None:
            return ()
        own = result.logprobs.tolist()[:count]
        ids, values = result.top_ids.tolist(), result.top_logprobs.tolist()
        judged = tuple(
            TokenLogprob(token, own[at], tuple(zip(ids[at], values[at], strict=True)))
            for at, token in enumerate(result.token_ids.tolist()[:count])
        )
        self.logprobs += judged
        return judged

    def completion(self) -> Completion:
        """The answer as it stands, with counts and times."""
        spans = self.inputs.spans
        images, audios = (sum(s.length for s in spans if s.kind == kind) for kind in ("image", "audio"))
        usage = Usage(self.prompt_length, len(self.tokens), images, audios, self.copied or 0)
        return self.answer.completion(
            tuple(self.tokens), usage, self.clock.timing(), self.adapters, tuple(self.logprobs)
        )
