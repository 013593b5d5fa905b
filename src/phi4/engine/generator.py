"""What everything above the engine asks: answer a batch, stream one answer, score given targets.

`Generator` puts three things together: a processor that makes arrays of messages, a runner that
makes tokens of arrays, and the scheduler between them. It knows no backend. Runs are in-process and
single-threaded; a server that feeds requests while others run drives a `Scheduler` itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from phi4.configs.rope import RopePolicy
from phi4.configs.routing import Route
from phi4.engine.adapters import check_user_adapter, choose_adapters
from phi4.engine.answer import Answer
from phi4.engine.drafting import UNKNOWN, PromptLookup
from phi4.engine.longrope import longrope_policy
from phi4.engine.preparing import Prepares
from phi4.engine.request import Request
from phi4.engine.runner import ModelRunner
from phi4.engine.sampler import pack
from phi4.engine.scheduler import Scheduler
from phi4.engine.sequence import Generating, LiveSequence, Scoring
from phi4.errors import ContextOverflow, InvalidRequest
from phi4.processing.chat import WHITE_SPACE
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.types import Completion, Delta, ModelInputs


@dataclass(frozen=True)
class TargetScores:
    """How likely a given answer was.

    Attributes:
        token_ids: The target's tokens.
        logprobs: Natural log-probability of each, given prompt and earlier target tokens.
        is_greedy: True = every token was the likeliest one there.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    is_greedy: bool

    @property
    def total(self) -> float:
        """Log-probability of the whole target."""
        return float(sum(self.logprobs))


class Generator:
    """Answers requests on one runner.

    Args:
        runner: The backend.
        processor: Makes arrays of messages.
        tokenizer: The model's.
        rope_policy: "reference" (as the reference implementation; default), "pin" or "short".
        user_adapter: Name of the caller's own adapter, added after each request's modality adapter.
        speculate: Guess tokens by prompt lookup (`drafting`) and let the runner check them.

    Raises:
        InvalidRequest: Unknown policy, or a user's adapter that is called like a modality's.
    """

    def __init__(
        self,
        runner: ModelRunner,
        processor: Prepares,
        tokenizer: Phi4Tokenizer,
        *,
        rope_policy: RopePolicy = "reference",
        user_adapter: str | None = None,
        speculate: bool = True,
    ) -> None:
        check_user_adapter(user_adapter)
        self.runner = runner
        self.processor = processor
        self.tokenizer = tokenizer
        self._policy = longrope_policy(rope_policy, processor.config.decoder)
        self._user_adapter = user_adapter
        self._speculate = speculate

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer all requests, sharing steps; the order of answers is the order of requests.

        Raises:
            InvalidRequest: A request is impossible; known before anything runs, except for an adapter or an
                encoder that is not there, which shows when the request's turn comes.
            ContextOverflow: A prompt with its answer does not fit the context.
            OutOfMemory: A request does not fit even alone.
        """
        sequences = [self.sequence(request, number) for number, request in enumerate(requests)]
        answers: dict[int, Completion] = {}
        for sequence, delta in self._run(sequences):
            if delta.completion is not None:
                answers[sequence.id] = delta.completion
        return [answers[sequence.id] for sequence in sequences]

    def stream(self, request: Request) -> Iterator[Delta]:
        """Answer one request piece by piece; the last piece carries the `Completion`.

        The request is checked and prepared by this call itself; the model runs while the iterator is read.
        Closing the iterator cancels the request and frees what the runner holds for it.

        Raises:
            InvalidRequest: As `generate`.
            ContextOverflow: As `generate`.
        """
        sequence = self.sequence(request, 0)
        return self._deltas(sequence)

    def _deltas(self, sequence: LiveSequence) -> Iterator[Delta]:
        for _, delta in self._run([sequence]):
            if delta.text or delta.tool_calls or delta.completion:
                yield delta

    def score(self, request: Request, target: str, *, with_end: bool = False) -> TargetScores:
        """Log-probabilities of `target` as the answer; see `score_batch`."""
        return self.score_batch([(request, target)], with_end=with_end)[0]

    def score_batch(
        self, pairs: Sequence[tuple[Request, str]], *, with_end: bool = False
    ) -> list[TargetScores]:
        """Judge given answers without drawing; long rows run in chunks and logits never leave the runner.

        White space before a target is dropped, as the assistant token swallows it in every encoded chat.

        A target is judged whole under the LongRoPE factors the policy gives to prompt and target together.
        An answer begins with those of the prompt: where it crosses the boundary under "reference", its tokens
        before the crossing are judged by other factors than they would be drawn by.

        Args:
            pairs: Prompt and answer.
            with_end: Also judge the end-of-turn token after the target.

        Raises:
            InvalidRequest: A target is empty.
            ContextOverflow: A prompt with its target does not fit the context.
        """
        sequences = [self._scoring(request, target, with_end, n) for n, (request, target) in enumerate(pairs)]
        for _ in self._run(sequences):
            pass
        return [TargetScores(tuple(s.tokens), tuple(s.logprobs), all(s.is_best)) for s in sequences]

    def sequence(self, request: Request, number: int) -> Generating:
        """Check a request and make it ready for a `Scheduler`.

        Raises:
            InvalidRequest: As `generate`.
            ContextOverflow: As `generate`.
        """
        sampling = pack(request.sampling, secrets.randbits(64))
        inputs, chosen = self._prepare(request)
        limit = request.sampling.max_new_tokens
        self._check_length(len(inputs.token_ids), limit)
        answer = Answer(
            self.tokenizer, request.sampling.stop, limit, tuple(tool.name for tool in request.tools)
        )
        return Generating(
            number,
            inputs,
            chosen.adapters,
            chosen.audio_projector,
            sampling=sampling,
            max_new_tokens=limit,
            lookup=_lookup(inputs) if self._speculate else None,
            answer=answer,
        )

    def _scoring(self, request: Request, target: str, with_end: bool, number: int) -> Scoring:
        inputs, chosen = self._prepare(request)
        tokens = self.tokenizer.encode_text(target.lstrip(WHITE_SPACE))
        if not tokens:
            raise InvalidRequest(f"the target {target!r} has no tokens; give the answer to judge")
        tokens += [self.tokenizer.tokens.end] if with_end else []
        self._check_length(len(inputs.token_ids), len(tokens))
        return Scoring(number, inputs, chosen.adapters, chosen.audio_projector, tokens)

    def _prepare(self, request: Request) -> tuple[ModelInputs, Route]:
        inputs = request.inputs
        if inputs is None:
            inputs = self.processor.prepare(request.messages, tools=request.tools)
        if not len(inputs.token_ids):
            raise InvalidRequest("the prompt is empty; give at least one token")
        chosen = choose_adapters(self.processor.config, inputs, self._user_adapter)
        return inputs, chosen if request.adapters is None else replace(chosen, adapters=request.adapters)

    def _check_length(self, prompt_tokens: int, answer_tokens: int) -> None:
        limit = self.runner.info.max_context_tokens
        if prompt_tokens + answer_tokens > limit:
            raise ContextOverflow(
                f"the prompt has {prompt_tokens} tokens and the answer may take {answer_tokens}, together "
                f"over the model's context of {limit}; shorten the prompt or ask for at most "
                f"{max(limit - prompt_tokens, 0)} new tokens"
            )

    def _run(self, sequences: Sequence[LiveSequence]) -> Iterator[tuple[LiveSequence, Delta]]:
        scheduler = Scheduler(self.runner, self._policy)
        for sequence in sequences:
            scheduler.add(sequence)
        try:
            while scheduler.busy:
                yield from scheduler.step()
        finally:
            scheduler.close()


def _lookup(inputs: ModelInputs) -> PromptLookup:
    """Guesses from a prompt; what media show is not read off it."""
    known = inputs.token_ids.tolist()
    for span in inputs.spans:
        known[span.start : span.start + span.length] = [UNKNOWN] * span.length
    return PromptLookup(known)
