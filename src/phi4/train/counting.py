"""A row source without tokenizer, media or files, which exercises the whole trainer in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phi4.train.collate import TrainRow
from phi4.train.settings import TaskShare
from phi4.types import ModelInputs


@dataclass(frozen=True)
class CountingSource:
    """Arithmetic progressions modulo the vocabulary: a task a tiny decoder learns in a few dozen steps.

    Attributes:
        vocab_size: Ids run from 0 up to it.
        length: Longest row; rows vary between half of it and all of it.
        pad_id: Filler of rows.
    """

    vocab_size: int = 64
    length: int = 24
    pad_id: int = 0

    def rows(self, task: TaskShare, indices: Sequence[int]) -> list[TrainRow]:
        """Progressions whose start, stride (1 to 3) and length depend on the index alone."""
        return [self._row(task.task, index) for index in indices]

    def _row(self, task: str, index: int) -> TrainRow:
        rng = np.random.default_rng([len(task), index])
        count = int(rng.integers(self.length // 2, self.length + 1))
        start, stride = int(rng.integers(self.vocab_size)), int(rng.integers(1, 4))
        ids = (start + stride * np.arange(count, dtype=np.int64)) % self.vocab_size
        mask = np.ones(count, dtype=np.bool_)
        mask[:2] = False  # the stride shows only after two terms
        return TrainRow(ModelInputs(token_ids=ids, loss_mask=mask))
