"""Collating pads on the right, finds every target and keeps media in order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from phi4.errors import TrainingError
from phi4.model import make_batch
from phi4.train.batch import tensor_batch
from phi4.train.collate import FRAME_BUCKET, IGNORED, TARGET_BUCKET, TOKEN_BUCKET, TrainRow, collate
from phi4.types import ModelInputs

RowMaker = Callable[..., TrainRow]


def test_targets_are_the_tokens_after_their_positions(make_row: RowMaker) -> None:
    rows = [make_row(1), make_row(2, answer=9, text=20)]
    made = collate(rows)
    flat = made.input_ids.reshape(-1)
    real = made.targets != IGNORED
    assert real.sum() == 4 + 9
    assert (flat[made.target_positions[real] + 1] == made.targets[real]).all()
    assert len(made.targets) % TARGET_BUCKET == 0 and made.input_ids.shape[1] % TOKEN_BUCKET == 0


def test_first_token_of_a_row_or_document_is_never_a_target() -> None:
    row = TrainRow(
        ModelInputs(np.arange(10, 20), loss_mask=np.ones(10, dtype=bool)), segments=np.repeat([3, 4], [4, 6])
    )
    made = collate([row])
    assert made.targets[made.targets != IGNORED].tolist() == [11, 12, 13, 15, 16, 17, 18, 19]
    assert made.position_ids[0, :10].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4, 5]


def test_media_batch_equals_the_models_own_batching(make_row: RowMaker) -> None:
    rows = [make_row(1, image=True, frames=50), make_row(2, image=True, frames=90)]
    ours = tensor_batch(collate(rows)).model
    theirs = make_batch([row.inputs for row in rows], ["short", "short"])
    assert ours.adapters == theirs.adapters
    assert ours.images is not None and theirs.images is not None
    assert ours.audios is not None and theirs.audios is not None
    assert torch.equal(ours.images.pixels, theirs.images.pixels)
    assert ours.images.crop_grids == theirs.images.crop_grids
    assert ours.audios.num_frames == theirs.audios.num_frames == (50, 90)
    assert ours.audios.projectors == theirs.audios.projectors == ("vision", "vision")
    assert ours.audios.features.shape[1] % FRAME_BUCKET == 0
    assert torch.equal(ours.audios.features[:, :90], theirs.audios.features)
    width = theirs.input_ids.shape[1]
    assert torch.equal(ours.input_ids[:, :width], theirs.input_ids)
    for mine, other in (
        (ours.image_positions, theirs.image_positions),
        (ours.audio_positions, theirs.audio_positions),
    ):
        assert mine is not None and other is not None
        padded = ours.input_ids.shape[1]
        assert torch.equal(mine // padded, other // width) and torch.equal(mine % padded, other % width)


def test_row_longer_than_the_short_context_takes_the_long_factors(make_row: RowMaker) -> None:
    batch = tensor_batch(collate([make_row(1, text=40), make_row(2)]), short_context=16)
    assert batch.model.regimes.tolist() == [1, 0]


def test_rows_without_mask_or_targets_are_refused() -> None:
    ids = np.arange(5)
    with pytest.raises(TrainingError, match="loss_mask"):
        collate([TrainRow(ModelInputs(ids))])
    with pytest.raises(TrainingError, match="no target"):
        collate([TrainRow(ModelInputs(ids, loss_mask=np.zeros(5, dtype=bool)))])
