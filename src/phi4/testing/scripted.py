"""A `ModelRunner` without a network: logits are a function of the sequence, given by the test.

It keeps the contract to the letter (draws through the reference sampler, limits, slots, handles) and
asserts that its caller does too, so it tests engines, servers and agents without any backend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from phi4.configs.routing import AudioProjector
from phi4.engine.drawing.sampler import draw, edited, log_softmax, top_candidates
from phi4.engine.runner import (
    Draw,
    MediaHandle,
    Row,
    RowResult,
    RunnerInfo,
    Score,
    SequenceSpec,
    Slot,
    StepPlan,
    StepResult,
    TextPiece,
    no_result,
)
from phi4.errors import ContextOverflow, OutOfMemory
from phi4.shapes import FloatArray
from phi4.types import AudioArrays, ImageArrays

Logits = Callable[[SequenceSpec, Sequence[int]], FloatArray]
"""From the spec and everything in the sequence to `[V]` logits; positions of media are negative numbers."""


def saying(token_ids: Sequence[int], prompt_length: int, vocab_size: int) -> Logits:
    """Logits under which greedy decoding says `token_ids` after a prompt of `prompt_length` positions."""

    def logits(spec: SequenceSpec, history: Sequence[int]) -> FloatArray:
        row = np.zeros(vocab_size, np.float32)
        row[token_ids[min(len(history) - prompt_length, len(token_ids) - 1)]] = 10.0
        return row

    return logits


def babbling(vocab_size: int) -> Logits:
    """Reproducible logits that depend on every token, on the adapters and on the LongRoPE regime."""

    def logits(spec: SequenceSpec, history: Sequence[int]) -> FloatArray:
        names = "".join(spec.adapters).encode() + spec.regime.encode()
        seed = [len(history), *(abs(token) * 2 + (token < 0) for token in history), *names]
        return np.random.default_rng(seed).normal(0.0, 2.0, vocab_size).astype(np.float32)

    return logits


@dataclass
class _Open:
    spec: SequenceSpec
    history: list[int]


class ScriptedRunner:
    """The fake.

    Args:
        logits: The "network".
        vocab_size: V.
        capacity_tokens: Positions of cache memory; opening more raises OutOfMemory. None = no limit.
        abilities: Fields of `RunnerInfo` to replace, such as `max_rows=2` or `mixes_adapters=False`.

    Attributes:
        plans: Every plan it was given, in order.
        opened: Every spec it was given, in order.
    """

    def __init__(
        self, logits: Logits, vocab_size: int, *, capacity_tokens: int | None = None, **abilities: object
    ) -> None:
        self._logits = logits
        self._capacity = capacity_tokens
        self._info = RunnerInfo(
            name="scripted",
            device="none",
            dtype="float32",
            attention="scripted",
            vocab_size=vocab_size,
            max_context_tokens=1 << 20,
            bytes_per_token=1,
            max_rows=8,
            max_step_tokens=64,
            modalities=("text", "vision", "speech"),
            adapters=("vision", "speech"),
        )
        self._info = replace(self._info, **abilities)  # type: ignore[arg-type]
        self._open: dict[Slot, _Open] = {}
        self._media: dict[int, int] = {}
        self._counter = 0
        self.plans: list[StepPlan] = []
        self.opened: list[SequenceSpec] = []

    @property
    def info(self) -> RunnerInfo:
        """As configured."""
        return self._info

    @property
    def num_open(self) -> int:
        """Open sequences."""
        return len(self._open)

    @property
    def num_handles(self) -> int:
        """Encoder outputs held."""
        return len(self._media)

    def encode(self, media: ImageArrays | AudioArrays, projector: AudioProjector = "speech") -> MediaHandle:
        """Remember a number made of the medium's digest."""
        self._counter += 1
        self._media[self._counter] = sum(f"{projector}{media.digest}".encode()) + 1
        return MediaHandle(self._counter, media.num_tokens)

    def release(self, handle: MediaHandle) -> None:
        """Forget it."""
        del self._media[handle.id]

    def open(self, spec: SequenceSpec) -> Slot:
        """Begin an empty history."""
        if spec.reserved_tokens > self._info.max_context_tokens:
            raise ContextOverflow(f"{spec.reserved_tokens} tokens are over {self._info.max_context_tokens}")
        reserved = spec.reserved_tokens + sum(other.spec.reserved_tokens for other in self._open.values())
        if self._capacity is not None and reserved > self._capacity:
            raise OutOfMemory(f"{reserved} tokens are over the scripted capacity of {self._capacity}")
        self._counter += 1
        slot = Slot(self._counter)
        self._open[slot] = _Open(spec, [])
        self.opened.append(spec)
        return slot

    def copy_prefix(self, source: Slot, target: Slot, length: int) -> None:
        """Copy a history's beginning."""
        here, there = self._open[source], self._open[target]
        assert not there.history
        assert (here.spec.adapters, here.spec.regime) == (there.spec.adapters, there.spec.regime)
        there.history[:] = here.history[:length]

    def truncate(self, slot: Slot, length: int) -> None:
        """Cut a history."""
        del self._open[slot].history[length:]

    def close(self, slot: Slot) -> None:
        """Forget a history."""
        del self._open[slot]

    def length(self, slot: Slot) -> int:
        """Length of a history; beyond the protocol, for inspection."""
        return len(self._open[slot].history)

    def step(self, plan: StepPlan) -> StepResult:
        """Append and answer, after checking the plan against the abilities."""
        self._check(plan)
        self.plans.append(plan)
        return StepResult(tuple(self._run(row) for row in plan.rows))

    def _check(self, plan: StepPlan) -> None:
        info, rows = self._info, plan.rows
        assert 0 < len(rows) <= info.max_rows
        assert len({row.slot for row in rows}) == len(rows)
        assert all(row.num_positions for row in rows)
        assert sum(row.num_positions for row in rows) <= info.max_step_tokens
        if not info.mixes_adapters:
            assert len({self._open[row.slot].spec.adapters for row in rows}) == 1
        if not info.mixes_prefill_decode:
            assert len(rows) == 1 or all(row.num_positions == 1 for row in rows)
        if not info.verifies_drafts_in_batch:
            assert len(rows) == 1 or not any(row.drafts for row in rows)

    def _run(self, row: Row) -> RowResult:
        state = self._open[row.slot]
        for piece in row.pieces:
            if isinstance(piece, TextPiece):
                state.history += [int(token) for token in piece.token_ids]
            else:
                value = self._media[piece.handle.id]
                state.history += [-(value + at) for at in range(piece.start, piece.start + piece.length)]
        fed = len(state.history) + len(row.drafts)
        assert fed <= state.spec.reserved_tokens
        if isinstance(row.want, Draw):
            return self._draw(state, row.want, row.drafts)
        if isinstance(row.want, Score):
            assert not row.drafts and len(row.want.targets) <= row.num_positions
            return self._score(state, [int(target) for target in row.want.targets])
        return no_result()

    def _draw(self, state: _Open, want: Draw, drafts: tuple[int, ...]) -> RowResult:
        assert not (drafts and want.allowed is not None)
        tokens: list[int] = []
        rows: list[FloatArray] = []
        for draft in (*drafts, None):
            logits = self._logits(state.spec, state.history)
            scores = edited(logits, want.bias, want.scale)
            tokens.append(draw(scores, want.sampling, len(state.history), want.allowed))
            rows.append(log_softmax(logits))
            if tokens[-1] != draft:
                break
            state.history.append(tokens[-1])
        if want.num_top is None:
            return replace(no_result(), token_ids=np.array(tokens, np.int64))
        top = [top_candidates(row, want.num_top) for row in rows]
        chosen = np.array([row[token] for row, token in zip(rows, tokens, strict=True)], np.float32)
        ids, values = np.stack([pair[0] for pair in top]), np.stack([pair[1] for pair in top])
        return RowResult(np.array(tokens, np.int64), chosen, ids, values, np.zeros(0, np.bool_))

    def _score(self, state: _Open, targets: list[int]) -> RowResult:
        first = len(state.history) - len(targets) + 1
        rows = [
            log_softmax(self._logits(state.spec, state.history[: first + i])) for i in range(len(targets))
        ]
        logprobs = np.array([row[t] for row, t in zip(rows, targets, strict=True)], np.float32)
        best = np.array([int(np.argmax(row)) == t for row, t in zip(rows, targets, strict=True)], np.bool_)
        nothing = no_result()
        return RowResult(nothing.token_ids, logprobs, nothing.top_ids, nothing.top_logprobs, best)
