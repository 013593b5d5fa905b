"""Rows of a plan to hidden states: embedding, media slices, and as few passes of the decoder as can be.

A single row of any length is one pass. Rows of one position each share a pass as far as their lanes lie
side by side. Long rows go through the decoder's form for prompts where the package has one and it fits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from phi4.checkpoint.adapters import UserAdapters, user_adapters
from phi4.engine.runner import Draw, Row, Score, TextPiece
from phi4.errors import OutOfMemory
from phi4.onnx.machine.memory import check_fits, free_bytes
from phi4.onnx.package import OnnxPackage
from phi4.onnx.package.parts import PREFILL
from phi4.onnx.serving.embedding import Embedding
from phi4.onnx.serving.graphs import DecoderGraph, PassRows
from phi4.onnx.serving.lane_ranges import LaneRange, lane_ranges
from phi4.onnx.serving.lanes import CachedSequence
from phi4.onnx.serving.session import SessionChoice
from phi4.onnx.serving.tables import RotaryTables
from phi4.onnx.serving.user_adapter import slot_arrays
from phi4.shapes import FloatArray

_log = logging.getLogger(__name__)

MIN_PREFILL_TOKENS = 32
"""Rows of at least so many positions go through the decoder's form for prompts, where there is one."""


@dataclass(frozen=True)
class Work:
    """One row of a plan with its sequence."""

    row: Row
    sequence: CachedSequence

    @property
    def count(self) -> int:
        """Positions it appends."""
        return self.row.num_positions

    @property
    def num_wanted(self) -> int:
        """How many of its last positions are judged."""
        want = self.row.want
        if isinstance(want, Draw):
            return 1 + len(self.row.drafts)
        return len(want.targets) if isinstance(want, Score) else 0


class Forward:
    """The decoder of a package, from token ids and features to hidden states.

    Args:
        package: The package.
        choice: Provider and threads.
        adapter: The user's own adapter; several = each for the rows that name it.
        free: Tells how many bytes are free for the form for prompts, None = unknown.
        paired: Compute rows of one position, and positions of one row, in pairs, see `lane_ranges`.

    Raises:
        InvalidArtifact: The graph cannot be run or does not belong to the package.
        OutOfMemory: Its weights do not fit.
    """

    def __init__(
        self,
        package: OnnxPackage,
        choice: SessionChoice,
        adapter: UserAdapters,
        free: Callable[[], int | None] = free_bytes,
        *,
        paired: bool = False,
    ) -> None:
        self._package = package
        self._choice = choice
        self._free = free
        self._paired = paired
        own, decoder = user_adapters(adapter), package.config.decoder
        self._slots = {one.config.name: slot_arrays(decoder, one) for one in own}
        if package.user_slot and not own and not package.plain_graphs:
            self._slots[""] = slot_arrays(decoder, None)
        self._tables = RotaryTables(package.config.decoder)
        self._embedding = Embedding(package)
        self._decoder = self._open("decoder")
        self._prompts: DecoderGraph | None = None

    def run(self, work: Sequence[Work], features: Mapping[int, FloatArray]) -> list[FloatArray]:
        """Append the rows' positions to their sequences.

        Args:
            work: One row, or several with one position each and the same adapters.
            features: Encoder outputs `[n, D]` by handle id.

        Returns:
            For each row `[num_wanted, D]`: hidden states of its last positions.
        """
        if len(work) == 1 and not (self._paired and work[0].count == 1):
            return [self._one(work[0], features)]
        picked: dict[int, FloatArray] = {}
        for lanes in lane_ranges([item.sequence for item in work], paired=self._paired):
            hidden = self._decoder.run(self._side_by_side(lanes, work, features), self._tables)  # [lanes, D]
            for lane, place in enumerate(lanes.members):
                if place is not None:
                    work[place].sequence.length += 1
                    picked[place] = hidden[lane : lane + work[place].num_wanted]
        return [picked[place] for place in range(len(work))]

    def _one(self, item: Work, features: Mapping[int, FloatArray]) -> FloatArray:
        sequence, hidden = item.sequence, self._embed(item.row, features)
        if self._paired and item.count % 2 and sequence.length + item.count < sequence.pool.capacity:
            # One position more, which nobody reads and the next one takes the place of.
            hidden = np.concatenate((hidden, np.zeros_like(hidden[:1])))
        rows = PassRows(
            pool=sequence.pool,
            first=sequence.lane,
            hidden=hidden[None],
            lengths=(sequence.length,),
            regimes=(sequence.spec.regime,),
            adapters=sequence.spec.adapters,
            wanted=np.arange(item.count - item.num_wanted, item.count, dtype=np.int64),
        )
        picked = self._form(item.count).run(rows, self._tables)
        sequence.length += item.count
        return picked[: item.num_wanted]

    def _side_by_side(
        self, lanes: LaneRange, work: Sequence[Work], features: Mapping[int, FloatArray]
    ) -> PassRows:
        """A pass over a range of lanes; idle ones compute with zeros, for nobody."""
        members = [None if place is None else work[place] for place in lanes.members]
        hidden = np.zeros((len(members), 1, self._package.config.decoder.hidden_size), np.float32)
        for lane, item in enumerate(members):
            if item is not None:
                hidden[lane] = self._embed(item.row, features)
        return PassRows(
            pool=lanes.pool,
            first=lanes.first,
            hidden=hidden,
            lengths=lanes.lengths,
            regimes=["short" if item is None else item.sequence.spec.regime for item in members],
            adapters=work[0].sequence.spec.adapters,
            wanted=np.arange(len(members), dtype=np.int64),
        )

    def _embed(self, row: Row, features: Mapping[int, FloatArray]) -> FloatArray:
        """`[T, D]` vectors of a row's new positions, drafts last."""
        parts: list[FloatArray] = []
        for piece in row.pieces:
            if isinstance(piece, TextPiece):
                parts.append(self._embedding.rows(np.asarray(piece.token_ids, np.int64)))
            else:
                parts.append(features[piece.handle.id][piece.start : piece.start + piece.length])
        if row.drafts:
            parts.append(self._embedding.rows(np.array(row.drafts, np.int64)))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _form(self, count: int) -> DecoderGraph:
        """The decoder's form for a row of `count` positions; that for prompts is opened on first use."""
        if not self._package.prefill or count < MIN_PREFILL_TOKENS:
            return self._decoder
        if self._prompts is None:
            self._prompts = self._open_prompts()
        return self._prompts

    def _open_prompts(self) -> DecoderGraph:
        """The form for prompts; the decoder instead, from then on, where there is no room for its weights."""
        try:
            check_fits(PREFILL, self._choice.own_bytes(self._package, PREFILL), self._free())
            return self._open(PREFILL)
        except OutOfMemory as problem:
            _log.warning("prompts are read by the decoder, which is slower than their own form: %s", problem)
            return self._decoder

    def _open(self, name: str) -> DecoderGraph:
        choice = self._choice
        if name != PREFILL:
            choice = choice.step_by_step(self._package.loaded_bytes(name))
        return DecoderGraph(self._package, name, choice, self._slots)
