"""Data: the small world that phi4-nano is trained and tested on, and how it reaches a trainer.

`generate(task, split, index)` returns a `Record`; `Loader` makes items in worker processes, in order;
`pack` joins documents into rows of one length. Spoken tasks need espeak-ng and pictures the DejaVu and
Liberation fonts (system packages). Nothing here imports torch.
"""

from __future__ import annotations

from phi4.data.generate import TASKS, generate
from phi4.data.loader import Loader, WorkerFailed
from phi4.data.packing import PackedRow, pack
from phi4.data.records import SPLITS, Record, Split

__all__ = ["SPLITS", "TASKS", "Loader", "PackedRow", "Record", "Split", "WorkerFailed", "generate", "pack"]
