"""Sums over one logging interval, kept on the device until they are asked for."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from phi4.train.batch import TrainBatch


class Meter:
    """Sums of one logging interval; losses stay on the device until `numbers`."""

    def __init__(self, num_tasks: int, device: torch.device) -> None:
        self.started = time.monotonic()
        self.waited_s = 0.0
        self.steps = self.rows = self.tokens = 0
        self.norm: Tensor | None = None
        self._device = device
        self._losses = torch.zeros(num_tasks, device=device)
        self._others: dict[str, Tensor] = {}
        self._measured: set[tuple[str, int]] = set()
        self._counts = [0] * num_tasks

    @property
    def age_s(self) -> float:
        """Seconds since the interval began."""
        return time.monotonic() - self.started

    def add(self, task: int, loss: Tensor, metrics: dict[str, Tensor], batch: TrainBatch) -> None:
        """Count one micro-batch of a task."""
        self._losses[task] += metrics.get("loss", loss.detach())
        for name, value in metrics.items():
            if name != "loss":
                self._others.setdefault(name, torch.zeros_like(self._losses))[task] += value
                self._measured.add((name, task))
        self._counts[task] += 1
        self.rows += batch.num_rows
        self.tokens += batch.num_tokens

    def numbers(self, names: list[str]) -> dict[str, Any]:
        """Means per task and overall; the one place that waits for the device."""
        counts = torch.tensor(self._counts, dtype=torch.float32)
        seen = [index for index, count in enumerate(self._counts) if count]
        norm = float(self.norm) if self.norm is not None else 0.0
        losses = self._losses.cpu() / counts
        others = {name: total.cpu() / counts for name, total in self._others.items()}
        return {
            "loss": float(self._losses.sum()) / max(1, sum(self._counts)),
            "norm": norm,
            "tasks": {names[index]: float(losses[index]) for index in seen},
            **{
                name: {names[index]: float(means[index]) for index in seen if (name, index) in self._measured}
                for name, means in others.items()
            },
        }
