"""`EngineCore`: requests go in at any time, each step returns what became visible, nothing is left behind.

    core = EngineCore(runner, tokenizer, policy=policy)
    number = core.submit(Work(inputs))
    while core.busy:
        for event in core.step():
            ...

One of them lives as long as its runner, in a process of its own under a server and inside `Generator`
elsewhere. One thread. What may be shared between requests (beginnings of prompts, encoder outputs) is shared
without any of them drawing another token for it.
"""

from __future__ import annotations

import secrets

from phi4.engine.answering.answer import Answer
from phi4.engine.answering.grammar import GrammarRule, TriggeredGrammar
from phi4.engine.answering.guards import LoopGuard
from phi4.engine.answering.stop import EndRule
from phi4.engine.drawing.drafting import UNKNOWN, PromptLookup
from phi4.engine.drawing.logit_edits import LogitEdits
from phi4.engine.drawing.sampler import pack
from phi4.engine.events import Event
from phi4.engine.live.encoder_cache import EncoderCache
from phi4.engine.live.generating import Generating
from phi4.engine.live.prefix_cache import PrefixCache
from phi4.engine.live.prefix_names import BLOCK_POSITIONS
from phi4.engine.live.scheduler import Scheduler
from phi4.engine.live.scoring import Scoring
from phi4.engine.live.sequence import LiveSequence
from phi4.engine.longrope import LongRopePolicy
from phi4.engine.runner import ModelRunner
from phi4.engine.stats import EngineStats
from phi4.engine.work import Work, check_work
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.types import ModelInputs


class EngineCore:
    """All requests of one runner.

    Args:
        runner: The backend.
        tokenizer: The model's.
        policy: LongRoPE policy.
        speculate: Guess tokens by prompt lookup (`drafting`) and let the runner check them.
        prefix_positions: Most positions that ended requests may keep reserved for prompts that begin like
            theirs. 0 = none are kept; requests that run at the same time share their beginnings nevertheless.
        encoder_tokens: Most tokens of encoder outputs to keep that no request uses just now.
        cache_positions: Most positions that all requests may reserve together, kept ones included; None = as
            many as the runner has room for.
        prefix_block: Positions in whose multiples beginnings are shared.
    """

    def __init__(
        self,
        runner: ModelRunner,
        tokenizer: Phi4Tokenizer,
        *,
        policy: LongRopePolicy,
        speculate: bool = True,
        prefix_positions: int = 0,
        encoder_tokens: int = 0,
        cache_positions: int | None = None,
        prefix_block: int = BLOCK_POSITIONS,
    ) -> None:
        self.runner = runner
        self._tokenizer = tokenizer
        self._speculate = speculate
        self._capacity = cache_positions
        self._block = prefix_block
        self._prefixes = PrefixCache(runner, prefix_positions, cache_positions, prefix_block)
        self._encoders = EncoderCache(runner, encoder_tokens)
        self._scheduler = Scheduler(runner, policy, self._prefixes, self._encoders)
        self._live: dict[int, LiveSequence] = {}
        self._num_submitted = 0

    @property
    def busy(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self._live)

    def check(self, work: Work) -> None:
        """Refuse a work that cannot run; nothing is computed for that.

        Raises:
            InvalidRequest: A parameter is out of range, or the prompt is malformed.
            ContextOverflow: Prompt and answer are too long together.
        """
        check_work(work, self.runner.info)

    def submit(self, work: Work) -> int:
        """Queue a work; its events carry the number that is returned.

        Raises:
            InvalidRequest: As `check`.
            ContextOverflow: As `check`.
        """
        self.check(work)
        number = self._num_submitted
        self._num_submitted += 1
        sequence = self._generating(work, number) if work.targets is None else self._scoring(work, number)
        self._live[number] = sequence
        self._scheduler.add(sequence)
        return number

    def cancel(self, number: int) -> None:
        """Forget a request and free all it holds, now. One that has ended or never was is none to forget."""
        sequence = self._live.pop(number, None)
        if sequence is not None:
            self._scheduler.cancel(sequence)

    def step(self) -> list[Event]:
        """Advance: at most one medium through its encoder, then one step of the runner.

        Whatever concerns one request alone is an event, its failure too.
        """
        events = self._scheduler.step()
        for event in events:
            if event.ended:
                del self._live[event.id]
        return events

    def stats(self) -> EngineStats:
        """How things stand."""
        counters, info = self._scheduler.counters, self.runner.info
        capacity = self._capacity or info.max_rows * info.max_context_tokens
        return EngineStats(
            running=self._scheduler.num_running,
            waiting=self._scheduler.num_waiting,
            kept=self._prefixes.num_kept,
            kept_positions=self._prefixes.kept_positions,
            cache_usage=min(1.0, (self._prefixes.reserved - self._prefixes.kept_positions) / capacity),
            kept_usage=min(1.0, self._prefixes.kept_positions / capacity),
            steps=counters.steps,
            prompt_tokens=counters.prompt_tokens,
            generation_tokens=counters.generation_tokens,
            prefix_queries=self._prefixes.queries,
            prefix_hits=self._prefixes.hits,
            encoder_queries=self._encoders.queries,
            encoder_hits=self._encoders.hits,
            drafted=counters.drafted,
            accepted=counters.accepted,
            preemptions=counters.preemptions,
            rope_crossings=counters.rope_crossings,
            finished=dict(counters.finished),
            failed=counters.failed,
        )

    def drop_caches(self) -> None:
        """Forget what is kept for later: weights or an adapter have changed, or memory is wanted."""
        self._prefixes.evict_all()
        self._encoders.evict_all()

    def close(self) -> None:
        """Cancel all requests and keep nothing."""
        for number in list(self._live):
            self.cancel(number)
        self.drop_caches()

    def _generating(self, work: Work, number: int) -> Generating:
        params, inputs = work.sampling, work.inputs
        edits = LogitEdits(params, text_ids(inputs), self.runner.info.vocab_size)
        guessable = work.grammar is None or isinstance(work.grammar, TriggeredGrammar)
        # A seed asks for the same tokens again. Guesses are checked several positions at a time, which under
        # quantised weights is not the arithmetic of one position, and whether there are any depends on who
        # else is being answered.
        repeatable = params.seed is None or self.runner.info.exact
        guessing = self._speculate and guessable and repeatable and not edits.follows_draws
        return Generating(
            number,
            inputs,
            work.adapters,
            work.projector,
            salt=work.salt,
            block=self._block,
            sampling=pack(params, secrets.randbits(64)),
            max_new_tokens=params.max_new_tokens,
            num_top=params.logprobs,
            lookup=PromptLookup(known_ids(inputs)) if guessing else None,
            grammar=work.grammar,
            edits=edits,
            answer=self._answer(work),
        )

    def _answer(self, work: Work) -> Answer:
        rules: list[EndRule] = []
        if work.grammar is not None:
            rules.append(GrammarRule(work.grammar, self._tokenizer.tokens.stop_ids))
        if work.loop_guard is not None:
            rules.append(LoopGuard(work.loop_guard))
        return Answer(
            self._tokenizer,
            work.sampling.stop,
            work.sampling.max_new_tokens,
            work.tool_names,
            rules=rules,
            keep_markup=work.keep_markup,
        )

    def _scoring(self, work: Work, number: int) -> Scoring:
        return Scoring(
            number,
            work.inputs,
            work.adapters,
            work.projector,
            list(work.targets or ()),
            salt=work.salt,
            block=self._block,
        )


def known_ids(inputs: ModelInputs) -> list[int]:
    """Tokens of a prompt; what media show is not read off it."""
    known: list[int] = inputs.token_ids.tolist()
    for span in inputs.spans:
        known[span.start : span.start + span.length] = [UNKNOWN] * span.length
    return known


def text_ids(inputs: ModelInputs) -> list[int]:
    """Tokens of a prompt without positions of media."""
    return [token for token in known_ids(inputs) if token != UNKNOWN]
