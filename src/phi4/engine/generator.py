"""What everything above the engine asks: answer a batch, stream one answer, score given targets.

`Generator` puts three things together: a processor that makes arrays of messages, a runner that
makes tokens of arrays, and the `EngineCore` between them. It knows no backend. Runs are in-process and
single-threaded; several streams may be read in turns, and then share steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from phi4.configs.rope import RopePolicy
from phi4.configs.routing import Route
from phi4.engine.adapters import check_user_adapter, choose_adapters
from phi4.engine.core import EngineCore
from phi4.engine.events import Event
from phi4.engine.events import TargetScores as TargetScores  # what `score` returns is imported from here
from phi4.engine.longrope import longrope_policy
from phi4.engine.overflow import fit_messages
from phi4.engine.preparing import Prepares
from phi4.engine.request import Request
from phi4.engine.runner import ModelRunner
from phi4.engine.work import Work
from phi4.errors import InvalidRequest
from phi4.processing.chat import WHITE_SPACE
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.types import Completion, Delta, Message, ModelInputs


class Generator:
    """Answers requests on one runner.

    Args:
        runner: The backend.
        processor: Makes arrays of messages.
        tokenizer: The model's.
        rope_policy: "reference" (as the reference implementation; default), "pin" or "short".
        user_adapter: Name of the caller's own adapter, added after each request's modality adapter.
        speculate: Guess tokens by prompt lookup (`drafting`) and let the runner check them.
        prefix_positions: As for `EngineCore`. 0 by default: weights of a live model may change between calls.
        encoder_tokens: The same.

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
        prefix_positions: int = 0,
        encoder_tokens: int = 0,
    ) -> None:
        check_user_adapter(user_adapter)
        self.processor = processor
        self.tokenizer = tokenizer
        self.core = EngineCore(
            runner,
            tokenizer,
            policy=longrope_policy(rope_policy, processor.config.decoder),
            speculate=speculate,
            prefix_positions=prefix_positions,
            encoder_tokens=encoder_tokens,
        )
        self._user_adapter = user_adapter
        self._inbox: dict[int, deque[Event]] = {}

    @property
    def runner(self) -> ModelRunner:
        """The backend."""
        return self.core.runner

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer all requests, sharing steps; the order of answers is the order of requests.

        Raises:
            InvalidRequest: A request is impossible; known before anything runs, except for an adapter or an
                encoder that is not there, which shows when the request's turn comes.
            ContextOverflow: A prompt with its answer does not fit the context.
            OutOfMemory: A request does not fit even alone.
        """
        answers: dict[int, Completion] = {}
        for place, event in self._run([self.work(request) for request in requests]):
            if event.delta is not None and event.delta.completion is not None:
                answers[place] = event.delta.completion
        return [answers[place] for place in range(len(requests))]

    def stream(self, request: Request) -> Iterator[Delta]:
        """Answer one request piece by piece; the last piece carries the `Completion`.

        The request is checked and prepared by this call itself; the model runs while the iterator is read.
        Closing the iterator cancels the request and frees what the runner holds for it.

        Raises:
            InvalidRequest: As `generate`.
            ContextOverflow: As `generate`.
        """
        work = self.work(request)
        self.core.check(work)
        return self._deltas(work)

    def _deltas(self, work: Work) -> Iterator[Delta]:
        for _, event in self._run([work]):
            delta = event.delta
            if delta is not None and (delta.text or delta.tool_calls or delta.logprobs or delta.completion):
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
        scores: dict[int, TargetScores] = {}
        for place, event in self._run([self._scoring(*pair, with_end) for pair in pairs]):
            if event.scores is not None:
                scores[place] = event.scores
        return [scores[place] for place in range(len(pairs))]

    def work(self, request: Request) -> Work:
        """Prepare a request for an `EngineCore`.

        Raises:
            InvalidRequest: Its messages cannot be prepared.
            ContextOverflow: They do not fit the context.
        """
        inputs = request.inputs
        if inputs is None:
            inputs = self._arrays(request)
        chosen = self._route(request, inputs)
        return Work(
            inputs,
            request.sampling,
            chosen.adapters,
            chosen.audio_projector,
            tool_names=tuple(tool.name for tool in request.tools),
            grammar=request.grammar,
            loop_guard=request.loop_guard,
        )

    def _arrays(self, request: Request) -> ModelInputs:
        def prepare(messages: Sequence[Message]) -> ModelInputs:
            return self.processor.prepare(messages, tools=request.tools)

        if request.overflow == "error":
            return prepare(request.messages)
        room = self.runner.info.max_context_tokens - request.sampling.max_new_tokens
        return fit_messages(self.processor.plain(request.messages), prepare, room, request.overflow).inputs

    def _route(self, request: Request, inputs: ModelInputs) -> Route:
        chosen = choose_adapters(self.processor.config, inputs, self._user_adapter)
        return chosen if request.adapters is None else replace(chosen, adapters=request.adapters)

    def _scoring(self, request: Request, target: str, with_end: bool) -> Work:
        tokens = self.tokenizer.encode_text(target.lstrip(WHITE_SPACE))
        if not tokens:
            raise InvalidRequest(f"the target {target!r} has no tokens; give the answer to judge")
        tokens += [self.tokenizer.tokens.end] if with_end else []
        return replace(self.work(request), targets=tuple(tokens))

    def _run(self, works: Sequence[Work]) -> Iterator[tuple[int, Event]]:
        """Events of works, by their places, until all have ended; an error of one ends them all."""
        for work in works:
            self.core.check(work)  # all, before any begins
        places = {self.core.submit(work): place for place, work in enumerate(works)}
        for number in places:
            self._inbox[number] = deque()
        try:
            while places:
                for number, event in self._news(list(places)):
                    if event.error is not None:
                        raise event.error
                    yield places[number], event
                    if event.ended:
                        del places[number], self._inbox[number]
        finally:
            for number in places:
                self.core.cancel(number)
                del self._inbox[number]

    def _news(self, numbers: Sequence[int]) -> Iterator[tuple[int, Event]]:
        """What has become known of requests; takes a step where nothing has."""
        if not any(self._inbox[number] for number in numbers):
            assert self.core.busy, "requests have vanished from the engine"
            for event in self.core.step():
                if event.id in self._inbox:
                    self._inbox[event.id].append(event)
        for number in numbers:
            while self._inbox.get(number):
                yield number, self._inbox[number].popleft()
