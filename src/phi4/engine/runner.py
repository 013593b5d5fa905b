"""The seam between policy and arithmetic: what a backend must do to serve tokens.

A `ModelRunner` owns weights, encoder outputs and physical cache memory, and draws tokens. The
engine above it owns requests, budgets and every policy, and talks in the plain values of this file
only: no tensor of a backend and no `[T, V]` logits ever cross. `docs/decisions/0001-model-runner.md`
walks a paged torch cache, ONNX Runtime's contiguous caches and a scripted fake through it.

Not here on purpose: tokenizers, stop rules, scheduling, chat. A runner is used by one thread at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType, Protocol

import numpy as np

from phi4.configs.rope import Regime
from phi4.configs.routing import AudioProjector
from phi4.shapes import BoolArray, FloatArray, IntArray
from phi4.types import AudioArrays, ImageArrays, Modality

Slot = NewType("Slot", int)
"""Name of one open sequence. Never reused by a runner after `close`."""


@dataclass(frozen=True)
class RunnerInfo:
    """What a runner is and what it can do in one `step`; constant while the runner lives.

    Attributes:
        name: Registry name, such as "torch".
        device: Where it computes, in words ("cpu", "cuda:0").
        dtype: Type of the arithmetic ("float32", "bfloat16", "int4").
        attention: Attention implementation in use ("sdpa", "eager", "flash", "scripted").
        vocab_size: Entries V of a logit row.
        max_context_tokens: Longest sequence, media and answer included.
        bytes_per_token: Cache memory one position takes.
        max_rows: Most rows in one step.
        max_step_tokens: Most positions in one step, all rows together; longer prompts come in chunks.
        modalities: Media it can encode; "text" always.
        adapters: Names that may stand in `SequenceSpec.adapters`.
        mixes_adapters: Rows with different adapter tuples may share a step.
        mixes_prefill_decode: Rows with different numbers of positions may share a step. When False, a step
            holds either one row of any length or several rows of exactly one position.
        verifies_drafts_in_batch: Rows with drafts may share a step; when False such a row comes alone.
    """

    name: str
    device: str
    dtype: str
    attention: str
    vocab_size: int
    max_context_tokens: int
    bytes_per_token: int
    max_rows: int
    max_step_tokens: int
    modalities: tuple[Modality, ...] = ("text",)
    adapters: tuple[str, ...] = ()
    mixes_adapters: bool = True
    mixes_prefill_decode: bool = True
    verifies_drafts_in_batch: bool = True

    @property
    def exact(self) -> bool:
        """Whether how rows are cut and put together changes results by rounding of float32 alone."""
        return self.dtype in ("float32", "fp32")


@dataclass(frozen=True)
class MediaHandle:
    """Encoder output that stays with the runner until `release`.

    Attributes:
        id: Name, never reused by a runner.
        num_tokens: Positions the medium takes in a sequence.
    """

    id: int
    num_tokens: int


@dataclass(frozen=True)
class SequenceSpec:
    """What is fixed for the life of a sequence, since cached keys and values depend on it.

    Attributes:
        adapters: Ordered adapter names whose deltas add up: the modality's, then the user's own.
        regime: LongRoPE factors for every position of the sequence.
        reserved_tokens: Most positions this sequence will ever hold; the runner may set memory aside.
    """

    adapters: tuple[str, ...] = ()
    regime: Regime = "short"
    reserved_tokens: int = 0


@dataclass(frozen=True)
class TextPiece:
    """Token ids `[n]`, n >= 1, to append to a sequence."""

    token_ids: IntArray


@dataclass(frozen=True)
class MediaPiece:
    """Encoder outputs `handle[start : start + length]` to append, so a chunk may end inside a medium."""

    handle: MediaHandle
    start: int
    length: int


Piece = TextPiece | MediaPiece


@dataclass(frozen=True)
class PackedSampling:
    """Sampling as plain numbers; `phi4.engine.drawing.sampler` defines the draw they stand for.

    Attributes:
        temperature: 0 = greedy; the other fields are then ignored.
        top_k: 0 = all.
        top_p: In (0, 1].
        seed: 0 <= seed < 2**64. The random number of a draw depends only on (seed, position), position
            being the place in the sequence where the drawn token will stand. So a draw does not depend on
            batching, chunking, preemption or a LongRoPE crossing.
        min_p: In [0, 1]; 0 = all.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    min_p: float = 0.0


@dataclass(frozen=True)
class Bias:
    """Numbers `values` `[n]` float32 to add to the logits of tokens `ids` `[n]` int64, each named once."""

    ids: IntArray
    values: FloatArray


@dataclass(frozen=True)
class Scale:
    """Factors of the logits of tokens `ids` `[n]` int64, each named once.

    Positive logits are divided by their factor, others multiplied, so a factor above 1 always lowers.

    Attributes:
        ids: The tokens.
        factors: `[n]` float32, above 0.
    """

    ids: IntArray
    factors: FloatArray


@dataclass(frozen=True)
class Nothing:
    """The row wants no result: a chunk of a prompt that is not its last."""


@dataclass(frozen=True)
class Draw:
    """The row wants the token after its last position (and after each accepted draft).

    Logits are scaled, then biased, then masked, then drawn from as `sampling` says.

    Attributes:
        sampling: How to draw.
        num_top: How many of the best candidates to report with their log-probabilities; 0 = the drawn token's
            own alone, None = not even that, which saves a pass over the vocabulary.
        allowed: `[V]`, True = this token may be drawn; None = all. A row with a mask has no drafts.
        bias: Added to logits; None = nothing. It holds after every draft of the row, so a row whose bias or
            scale changes with each drawn token has no drafts.
        scale: Divides or multiplies logits; None = nothing.
    """

    sampling: PackedSampling = PackedSampling()
    num_top: int | None = 0
    allowed: BoolArray | None = None
    bias: Bias | None = None
    scale: Scale | None = None


@dataclass(frozen=True)
class Score:
    """The row wants log-probabilities of given tokens.

    Attributes:
        targets: `[n]`, n <= positions fed; `targets[i]` is judged after the row's position `fed - n + i`, so
            the last target follows the row's last position.
    """

    targets: IntArray


Want = Nothing | Draw | Score


@dataclass(frozen=True)
class Row:
    """What one sequence does in one step.

    Attributes:
        slot: An open sequence; at most once in a plan.
        pieces: What to append to it, in order; at least one position.
        want: What to give back.
        drafts: Guessed continuation. The runner appends it too, draws after every position, keeps the longest
            prefix equal to its own draws and forgets the rest. Only with `Draw`.
    """

    slot: Slot
    pieces: tuple[Piece, ...]
    want: Want = Nothing()
    drafts: tuple[int, ...] = ()

    @property
    def num_positions(self) -> int:
        """Positions appended, drafts included."""
        fed = sum(len(p.token_ids) if isinstance(p, TextPiece) else p.length for p in self.pieces)
        return fed + len(self.drafts)


@dataclass(frozen=True)
class StepPlan:
    """The rows of one step. Must respect the limits and abilities of `RunnerInfo`."""

    rows: tuple[Row, ...]


@dataclass(frozen=True)
class RowResult:
    """The answer to one row; arrays are empty where nothing was wanted.

    All log-probabilities are natural and of the model's own distribution, before what a `Draw` changes.

    Attributes:
        token_ids: `[n]`. `Draw`: the accepted drafts, then one more drawn token. `Score`: empty.
        logprobs: `[n]` of the drawn tokens, unless the `Draw` wants none, or of the `Score` targets.
        top_ids: `[n, k]` best candidates, best first, ties by lower id.
        top_logprobs: `[n, k]` of `top_ids`.
        is_best: `[n]`, True = the target is the greedy choice there. `Score` only.
    """

    token_ids: IntArray
    logprobs: FloatArray
    top_ids: IntArray
    top_logprobs: FloatArray
    is_best: BoolArray


@dataclass(frozen=True)
class StepResult:
    """One `RowResult` per row of the plan, in its order."""

    rows: tuple[RowResult, ...]


def no_result() -> RowResult:
    """The result of a row that wanted nothing."""
    none = np.zeros(0, np.int64)
    empty = np.zeros((0, 0), np.float32)
    return RowResult(none, np.zeros(0, np.float32), empty.astype(np.int64), empty, np.zeros(0, np.bool_))


class ModelRunner(Protocol):
    """A backend. Every sequence is a growing row of cached positions named by a `Slot`.

    Laws every runner obeys, which `tests/` hold it to:

    1. Chunking, batching and the order of steps change no result beyond rounding: a row computes what it
       would compute alone, fed at once.
    2. A draw equals `sampler.draw` on the row's logits as `sampler.edited` leaves them, at its position.
    3. After an exception of `step`, slots of the plan may only be truncated or closed; others are intact.
    4. Nothing is freed behind the engine's back: slots live until `close`, handles until `release`.
    """

    @property
    def info(self) -> RunnerInfo:
        """Limits, sizes and abilities."""
        ...

    def encode(self, media: ImageArrays | AudioArrays, projector: AudioProjector = "speech") -> MediaHandle:
        """Run the encoder and projector of one medium and keep the outputs.

        The outputs are needed again when a row is preempted or crosses the LongRoPE boundary, so they stay
        until `release`. May load the encoder's weights on first use.

        Args:
            media: A tiled picture or log-mel frames.
            projector: Projector of a recording: "vision" when its prompt also holds pictures.

        Raises:
            InvalidRequest: No such encoder is there or loaded, or the arrays state a wrong `num_tokens`.
            OutOfMemory: No room for the outputs.
        """
        ...

    def release(self, handle: MediaHandle) -> None:
        """Forget encoder outputs. Unknown or released handles are a programming mistake."""
        ...

    def open(self, spec: SequenceSpec) -> Slot:
        """Begin an empty sequence. May load adapters on first use.

        Raises:
            InvalidRequest: An adapter is unknown.
            ContextOverflow: `reserved_tokens` is more than the context.
            OutOfMemory: No room for `reserved_tokens`; the engine may close another slot and try again.
        """
        ...

    def copy_prefix(self, source: Slot, target: Slot, length: int) -> None:
        """Make the empty `target` begin with the first `length` positions of `source` (shared or copied).

        Both must have the same adapters and regime: their caches are not interchangeable otherwise.
        """
        ...

    def truncate(self, slot: Slot, length: int) -> None:
        """Forget all positions from `length` on; the next step appends there."""
        ...

    def close(self, slot: Slot) -> None:
        """End the sequence and free its memory. The slot's name is dead afterwards."""
        ...

    def step(self, plan: StepPlan) -> StepResult:
        """Append every row's pieces to its sequence and return what each row wants.

        A drawn token is NOT appended: the engine feeds it back in the next plan, so it may also replace it.

        Raises:
            OutOfMemory: Work space ran out; see law 3.
        """
        ...
