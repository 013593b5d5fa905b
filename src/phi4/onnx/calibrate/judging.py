"""A package against the exact model: KL divergence of its next-token distributions, on given rows.

    reference = Reference.of(weights, rows, choice)
    fidelity = judge(open_package(folder), reference, choice)

The package runs as it answers, quantised activations, head and embedding table included; features of media
are those of the exact encoders. The exact states come from a walk, so nothing ever holds the model in
float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from phi4.configs.rope import regime_for
from phi4.engine.runner import MediaHandle, MediaPiece, Piece, Row, Score, SequenceSpec, TextPiece
from phi4.onnx.calibrate.divergence import Divergence, Fidelity, head_slices, summed_up
from phi4.onnx.calibrate.rows import CalibrationRow
from phi4.onnx.calibrate.walk import DecoderWeights, final_states
from phi4.onnx.package import OnnxPackage
from phi4.onnx.serving.forward import Forward, Work
from phi4.onnx.serving.graphs import HeadGraph
from phi4.onnx.serving.lanes import Lanes
from phi4.onnx.serving.session import SessionChoice, runtime_errors
from phi4.shapes import AnyArray, FloatArray

LOGIT_ROWS = 64
"""Positions whose logits are compared together; 51 MB in the released model."""


@dataclass(frozen=True)
class Reference:
    """What the exact model says.

    Attributes:
        rows: The rows.
        states: Hidden states of their judged positions behind the last norm, `[n, D]` each.
        head: Matrix of the logits `[V, D]`.
    """

    rows: Sequence[CalibrationRow]
    states: Sequence[FloatArray]
    head: AnyArray

    @classmethod
    def of(cls, weights: DecoderWeights, rows: Sequence[CalibrationRow], choice: SessionChoice) -> Reference:
        """Walk the rows through the exact model."""
        return cls(rows, final_states(weights, rows, choice), weights.head())


def judge(package: OnnxPackage, reference: Reference, choice: SessionChoice) -> Fidelity:
    """Compare a package with the exact model.

    Args:
        package: Of the same model, with the adapters of the rows.
        reference: The exact model's states.
        choice: Provider and threads.

    Raises:
        InvalidArtifact: A graph cannot be run.
        OutOfMemory: Its weights do not fit.
    """
    forward, head = Forward(package, choice, None), HeadGraph(package, choice)
    lanes = Lanes(package.config.decoder)
    parts = []
    with runtime_errors("judging a package"):
        for row, exact in zip(reference.rows, reference.states, strict=True):
            states = _states(forward, lanes, package, row)[row.judged]
            for first in range(0, len(exact), LOGIT_ROWS):
                part = slice(first, first + LOGIT_ROWS)
                parts.append(_compare(reference.head, exact[part], head.logits(states[part])))
    return summed_up(parts)


def _compare(head: AnyArray, exact: FloatArray, logits: FloatArray) -> Divergence:
    found = Divergence(len(exact))
    for part, matrix in head_slices(head):
        found.add(exact @ matrix, logits[:, part])
    return found


def _states(forward: Forward, lanes: Lanes, package: OnnxPackage, row: CalibrationRow) -> FloatArray:
    """`[T, D]` hidden states of a whole row behind the last norm."""
    count = len(row.token_ids)
    adapters = () if row.adapter is None else (row.adapter,)
    slot = lanes.open(SequenceSpec(adapters, regime_for(package.config.decoder, count), count))
    work = Work(Row(slot, tuple(_row_pieces(row)), Score(np.zeros(count, np.int64))), lanes[slot])
    features = {number: run.features for number, run in enumerate(row.media)}
    (states,) = forward.run([work], features)
    lanes.close(slot)
    return states


def _row_pieces(row: CalibrationRow) -> Iterator[Piece]:
    done = 0
    for number, run in enumerate(row.media):
        if run.start > done:
            yield TextPiece(row.token_ids[done : run.start])
        length = len(run.features)
        yield MediaPiece(MediaHandle(number, length), 0, length)
        done = run.start + length
    if done < len(row.token_ids):
        yield TextPiece(row.token_ids[done:])
