"""A sequence on its way: the state the scheduler keeps for one request between steps.

`LiveSequence` knows which positions its cache still lacks and what to ask of the runner when they
are fed; the two kinds differ only in that question. `Generating` asks for a drawn token and grows by
it; `Scoring` asks for log-probabilities of targets that are known beforehand.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from phi4.configs.rope import Regime
from phi4.configs.routing import AudioProjector
from phi4.engine.events import Event, Progress
from phi4.engine.live.encoder_cache import EncoderCache
from phi4.engine.live.prefix_cache import OpenCache
from phi4.engine.live.prefix_names import BLOCK_POSITIONS, PrefixNames, root_name
from phi4.engine.request import piece_length, pieces_between, prompt_pieces, text_piece
from phi4.engine.runner import MediaHandle, Nothing, Piece, Row, RowResult, SequenceSpec, Want
from phi4.types import AudioArrays, ImageArrays, ModelInputs, Timing


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


@dataclass(eq=False)
class LiveSequence(ABC):
    """State common to both kinds.

    Attributes:
        id: Name within its engine.
        inputs: The prompt as arrays.
        adapters: Ordered adapter tuple, the same for prefill and every later step.
        projector: Audio projector of its recordings.
        tokens: Known tokens after the prompt: generated so far, or the targets to score.
        salt: Tenant; only sequences of one tenant share anything.
        block: Positions of a block of names, see `PrefixNames`.
        cache: Its positions at the runner; None = it waits.
        copied: Positions of the prompt it began with, at its first turn; None = it has had none.
        last_step: Number of the step it last took part in, for fairness.
    """

    id: int
    inputs: ModelInputs
    adapters: tuple[str, ...]
    projector: AudioProjector
    tokens: list[int] = field(default_factory=list)
    salt: str = ""
    block: int = BLOCK_POSITIONS
    clock: Clock = field(default_factory=Clock)
    cache: OpenCache | None = None
    copied: int | None = None
    last_step: int = -1
    handles: tuple[MediaHandle, ...] = ()
    prompt: tuple[Piece, ...] = ()
    _names: dict[Regime, PrefixNames] = field(default_factory=dict, repr=False)

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

    @property
    @abstractmethod
    def most_copied(self) -> int:
        """Positions a cache of another sequence may stand in for: behind them something is wanted."""

    @abstractmethod
    def want(self, stop: int) -> Want:
        """What to ask of a row that feeds positions up to `stop`."""

    @abstractmethod
    def take(self, result: RowResult) -> Event:
        """Use the answer to `want`; the last event of a sequence says so itself."""

    @property
    def fed(self) -> int:
        """Positions the runner's cache holds."""
        return 0 if self.cache is None else self.cache.length

    @property
    def pending(self) -> int:
        """Positions still to feed."""
        return self.target_length - self.fed

    @property
    def regime(self) -> Regime | None:
        """Factors its cache is made with."""
        return None if self.cache is None else self.cache.spec.regime

    @property
    def next_medium(self) -> ImageArrays | AudioArrays | None:
        """What has to be encoded next; None = everything is."""
        media: tuple[ImageArrays | AudioArrays, ...] = (*self.inputs.images, *self.inputs.audios)
        return media[len(self.handles)] if len(self.handles) < len(media) else None

    def encode_next(self, encoders: EncoderCache) -> None:
        """Have the next medium encoded; its outputs are kept until `release`."""
        medium = self.next_medium
        assert medium is not None
        begin = time.perf_counter()
        self.handles += (encoders.acquire(medium, self.projector, self.salt),)
        self.clock.encode_s += time.perf_counter() - begin

    def release(self, encoders: EncoderCache) -> None:
        """Give encoder outputs back."""
        for handle in self.handles:
            encoders.release(handle)
        self.handles, self.prompt = (), ()

    def spec(self, regime: Regime) -> SequenceSpec:
        """What to open for it under `regime`."""
        return SequenceSpec(self.adapters, regime, self.final_length)

    def names(self, regime: Regime, positions: int) -> list[bytes]:
        """Names of its first `positions` positions under `regime`, by whole blocks."""
        if regime not in self._names:
            root = root_name(self.salt, self.adapters, self.projector, regime)
            self._names[regime] = PrefixNames(root, self.inputs, self.block)
        return self._names[regime].names(self.tokens, positions)

    def begin(self, cache: OpenCache) -> None:
        """Feed this cache from now on; the former one is gone."""
        num_images = len(self.inputs.images)
        self.prompt = prompt_pieces(self.inputs, self.handles[:num_images], self.handles[num_images:])
        self.clock.encoded = self.clock.encoded or time.perf_counter()
        self.cache = cache
        if self.copied is None:
            self.copied = min(cache.copied, self.prompt_length)

    def guess(self, most: int) -> tuple[int, ...]:
        """Up to `most` tokens that may follow, for the runner to check; none where nothing is drawn."""
        return ()

    def row(self, count: int, drafts: tuple[int, ...] = ()) -> Row:
        """The next `count` positions as a row of a plan, and guesses of what follows them.

        Raises:
            InvalidRequest: The grammar of this request allows nothing, or fails.
        """
        assert self.cache is not None and 0 < count <= self.pending
        stop = self.fed + count
        return Row(self.cache.slot, self._pieces(self.fed, stop), self.want(stop), drafts)

    def _pieces(self, start: int, stop: int) -> tuple[Piece, ...]:
        length = self.prompt_length
        pieces = pieces_between(self.prompt, start, stop) if start < length else ()
        known = self.tokens[max(start - length, 0) : max(stop - length, 0)]
        return (*pieces, text_piece(known)) if known else pieces

    def advance(self, row: Row, result: RowResult) -> Event:
        """Account for a row that ran; returns what the caller should see.

        Raises:
            Phi4Error: The grammar of this request failed.
        """
        assert self.cache is not None
        self.cache.length += sum(piece_length(piece) for piece in row.pieces)
        if row.drafts:
            right = len(result.token_ids) - 1  # the runner keeps right guesses in its cache
            self.cache.length += right
            self.judged(len(row.drafts), right)
        if isinstance(row.want, Nothing):
            return Event(self.id, progress=self.progress())
        return self.take(result)

    def progress(self) -> Progress:
        """How far its prompt is, and what has to be fed again with it."""
        return Progress(self.fed, self.target_length)

    def judged(self, guessed: int, right: int) -> None:
        """Learn how many guesses were right."""
        self.clock.drafted += guessed
        self.clock.accepted += right
