"""A sequence on its way: the state the scheduler keeps for one request between steps.

`LiveSequence` knows which positions its cache still lacks and what to ask of the runner when they
are fed; the two kinds differ only in that question. `Generating` asks for a drawn token and grows by
it; `Scoring` asks for log-probabilities of targets that are known beforehand.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np

from phi4.configs.rope import Regime
from phi4.configs.routing import AudioProjector
from phi4.engine.answer import Answer
from phi4.engine.drafting import PromptLookup
from phi4.engine.request import piece_length, pieces_between, prompt_pieces, text_piece
from phi4.engine.runner import (
    Draw,
    MediaHandle,
    ModelRunner,
    Nothing,
    PackedSampling,
    Piece,
    Row,
    RowResult,
    Score,
    SequenceSpec,
    Slot,
    Want,
)
from phi4.types import Completion, Delta, ModelInputs, Timing, ToolCall, Usage


@dataclass
class Clock:
    """Wall times of one request, `time.perf_counter` seconds."""

    asked: float = field(default_factory=time.perf_counter)
    encode_s: float = 0.0
    encoded: float = 0.0
    first: float = 0.0
    rope_crossings: int = 0
    drafted: int = 0
    accepted: int = 0

    def timing(self) -> Timing:
        """What the caller sees, as of now."""
        now = time.perf_counter()
        first = self.first or now
        return Timing(
            self.encode_s,
            first - (self.encoded or first),
            first - self.asked,
            now - self.asked,
            self.rope_crossings,
            self.drafted,
            self.accepted,
        )


@dataclass
class LiveSequence(ABC):
    """State common to both kinds.

    Attributes:
        id: Name within its scheduler.
        inputs: The prompt as arrays.
        adapters: Ordered adapter tuple, the same for prefill and every later step.
        projector: Audio projector of its recordings.
        tokens: Known tokens after the prompt: generated so far, or the targets to score.
        fed: Positions the runner's cache holds.
        last_step: Number of the step it last took part in, for fairness.
    """

    id: int
    inputs: ModelInputs
    adapters: tuple[str, ...]
    projector: AudioProjector
    tokens: list[int] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)
    fed: int = 0
    last_step: int = -1
    slot: Slot | None = None
    regime: Regime | None = None
    handles: tuple[MediaHandle, ...] = ()
    prompt: tuple[Piece, ...] = ()
    done: bool = False

    @property
    def prompt_length(self) -> int:
        """Positions of the prompt, media included."""
        return len(self.inputs.token_ids)

    @property
    @abstractmethod
    def target_length(self) -> int:
        """Positions the cache must hold before this sequence can give its next result."""

    @property
    @abstractmethod
    def rope_length(self) -> int:
        """Length that decides the LongRoPE regime now."""

    @property
    @abstractmethod
    def final_length(self) -> int:
        """Longest this sequence can become."""

    @abstractmethod
    def want(self, stop: int) -> Want:
        """What to ask of a row that feeds positions `fed` to `stop`."""

    @abstractmethod
    def take(self, result: RowResult, stop: int) -> Delta:
        """Use the answer to `want(stop)`; sets `done` at the end."""

    @property
    def pending(self) -> int:
        """Positions still to feed."""
        return self.target_length - self.fed

    def encode(self, runner: ModelRunner) -> None:
        """Have the media encoded once; the handles live until `close`."""
        if self.prompt:
            return
        self._release(runner)  # of an attempt that ran out of memory half way
        begin = time.perf_counter()
        images: list[MediaHandle] = []
        audios: list[MediaHandle] = []
        for found, media in ((images, self.inputs.images), (audios, self.inputs.audios)):
            for medium in media:
                found.append(runner.encode(medium, self.projector))
                self.handles += (found[-1],)
        self.prompt = prompt_pieces(self.inputs, images, audios)
        self.clock.encoded = time.perf_counter()
        self.clock.encode_s = self.clock.encoded - begin

    def open(self, runner: ModelRunner, regime: Regime) -> None:
        """Begin with an empty cache made under `regime`; a former cache is dropped."""
        self.close_slot(runner)
        self.slot = runner.open(SequenceSpec(self.adapters, regime, self.final_length))
        self.regime, self.fed = regime, 0

    def guess(self, most: int) -> tuple[int, ...]:
        """Up to `most` tokens that may follow, for the runner to check; none where nothing is drawn."""
        return ()

    def row(self, count: int, drafts: tuple[int, ...] = ()) -> Row:
        """The next `count` positions as a row of a plan, and guesses of what follows them."""
        assert self.slot is not None and 0 < count <= self.pending
        stop = self.fed + count
        return Row(self.slot, self._pieces(self.fed, stop), self.want(stop), drafts)

    def _pieces(self, start: int, stop: int) -> tuple[Piece, ...]:
        length = self.prompt_length
        pieces = pieces_between(self.prompt, start, stop) if start < length else ()
        known = self.tokens[max(start - length, 0) : max(stop - length, 0)]
        return (*pieces, text_piece(known)) if known else pieces

    def advance(self, row: Row, result: RowResult) -> Delta | None:
        """Account for a row that ran; returns what the caller should see, if anything."""
        self.fed += sum(piece_length(piece) for piece in row.pieces)
        if row.drafts:
            right = len(result.token_ids) - 1  # the runner keeps right guesses in its cache
            self.fed += right
            self.judged(len(row.drafts), right)
        return None if isinstance(row.want, Nothing) else self.take(result, self.fed)

    def judged(self, guessed: int, right: int) -> None:
        """Learn how many guesses were right."""
        self.clock.drafted += guessed
        self.clock.accepted += right

    def close_slot(self, runner: ModelRunner) -> None:
        """Give the cache back, if there is one."""
        if self.slot is not None:
            runner.close(self.slot)
        self.slot, self.fed = None, 0

    def close(self, runner: ModelRunner) -> None:
        """Give back everything the runner holds for this sequence."""
        self.close_slot(runner)
        self._release(runner)

    def _release(self, runner: ModelRunner) -> None:
        for handle in self.handles:
            runner.release(handle)
        self.handles = ()


@dataclass
class Generating(LiveSequence):
    """A sequence that grows by drawn tokens: one a step, and as many more as were guessed right."""

    sampling: PackedSampling = field(default_factory=PackedSampling)
    max_new_tokens: int = 1
    lookup: PromptLookup | None = None
    answer: Answer = field(kw_only=True)

    @property
    def target_length(self) -> int:
        return self.prompt_length + len(self.tokens)

    @property
    def rope_length(self) -> int:
        return self.target_length

    @property
    def final_length(self) -> int:
        return self.prompt_length + self.max_new_tokens

    def want(self, stop: int) -> Want:
        return Draw(self.sampling) if stop == self.target_length else Nothing()

    def guess(self, most: int) -> tuple[int, ...]:
        # The last token of the longest answer is drawn, never fed.
        room = self.final_length - 1 - self.target_length
        if self.lookup is None or self.pending != 1 or not self.tokens or room < 1:
            return ()
        return self.lookup.guess(min(most, room))

    def judged(self, guessed: int, right: int) -> None:
        super().judged(guessed, right)
        if self.lookup is not None:
            self.lookup.judged(guessed, right)

    def take(self, result: RowResult, stop: int) -> Delta:
        if not self.tokens:
            self.clock.first = time.perf_counter()
        said = ""
        called: list[ToolCall] = []
        for token in result.token_ids.tolist():
            self.tokens.append(token)
            if self.lookup is not None:
                self.lookup.push(token)
            text, calls = self.answer.push(token)
            said += text
            called += calls
            if self.answer.finished:
                break
        self.done = self.answer.finished
        return Delta(said, tuple(called), self.completion() if self.done else None)

    def completion(self) -> Completion:
        """The answer as it stands, with counts and times."""
        spans = self.inputs.spans
        images, audios = (sum(s.length for s in spans if s.kind == kind) for kind in ("image", "audio"))
        usage = Usage(self.prompt_length, len(self.tokens), images, audios)
        return self.answer.completion(tuple(self.tokens), usage, self.clock.timing(), self.adapters)


@dataclass
class Scoring(LiveSequence):
    """A sequence whose continuation is given and only judged.

    Attributes:
        logprobs: One entry per target already judged.
        is_best: Whether that target was the greedy choice.
    """

    logprobs: list[float] = field(default_factory=list)
    is_best: list[bool] = field(default_factory=list)

    @property
    def target_length(self) -> int:
        return self.prompt_length + len(self.tokens) - 1  # nothing follows the last target

    @property
    def rope_length(self) -> int:
        return self.final_length

    @property
    def final_length(self) -> int:
        return self.prompt_length + len(self.tokens)

    def want(self, stop: int) -> Want:
        # What was judged before the cache had to be made anew is not judged again.
        targets = self.tokens[len(self.logprobs) : max(stop + 1 - self.prompt_length, 0)]
        return Score(np.asarray(targets, np.int64)) if targets else Nothing()

    def take(self, result: RowResult, stop: int) -> Delta:
        self.logprobs += [float(value) for value in result.logprobs]
        self.is_best += [bool(value) for value in result.is_best]
        self.done = stop == self.target_length
        return Delta()
