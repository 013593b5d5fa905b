"""The guard: decides on the device, without waiting, whether a step is applied or thrown away.

A step is bad when its loss or gradient norm is not finite, when the norm passes an absolute limit,
or when loss or norm is a spike against the recent good steps of the same task. Bad steps never enter
the window, so one NaN does not poison the steps after it (the flaw of the common skip-step
optimisers). The windows are tensors and part of the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from phi4.errors import TrainingError
from phi4.train.settings import GuardSettings

_LOSS_RATIO = 0.5  # losses are compared on a tighter scale than norms: 1 + (ratio_limit - 1) * this


class Guard:
    """Windows of good losses and gradient norms, one row per task.

    Args:
        settings: Limits.
        num_tasks: Rows of the windows.
        device: Where verdicts are formed.
    """

    def __init__(self, settings: GuardSettings, num_tasks: int, device: torch.device) -> None:
        self.settings = settings
        self.losses = torch.zeros(num_tasks, settings.window, device=device)  # [tasks, window]
        self.norms = torch.zeros(num_tasks, settings.window, device=device)  # [tasks, window]
        self.counts = torch.zeros(num_tasks, dtype=torch.int64, device=device)  # good steps so far
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)
        self.in_a_row = torch.zeros((), dtype=torch.int64, device=device)

    @torch.no_grad()
    def judge(self, task: int, loss: Tensor, norm: Tensor) -> Tensor:
        """True (0-dim bool tensor) when the step may be applied; remembers it if so.

        Args:
            task: Row of the windows.
            loss: Mean loss of the step, 0-dim.
            norm: Gradient norm before clipping, 0-dim.
        """
        s = self.settings
        loss, norm, count = loss.detach().float(), norm.float(), self.counts[task]
        ratio = 1.0 + (s.ratio_limit - 1.0) * _LOSS_RATIO
        good = torch.isfinite(loss) & torch.isfinite(norm) & (norm <= s.norm_limit)
        good &= ~self._spike(self.norms[task], count, norm, s.ratio_limit)
        good &= ~self._spike(self.losses[task], count, loss, ratio)
        slot = (count % s.window).reshape(1)
        for window, value in ((self.losses, loss), (self.norms, norm)):
            kept = torch.where(good, value, window[task, slot].squeeze(0))
            window[task].index_copy_(0, slot, kept.reshape(1))
        self.counts[task] += good
        self.skipped += ~good
        self.in_a_row = torch.where(good, 0, self.in_a_row + 1)
        return good

    def _spike(self, window: Tensor, count: Tensor, value: Tensor, ratio: float) -> Tensor:
        s = self.settings
        known = torch.arange(s.window, device=window.device) < count
        number = known.sum().clamp(min=1)
        mean = window.sum() / number  # unused slots are zero
        std = torch.sqrt((torch.where(known, window - mean, 0.0) ** 2).sum() / number)
        late = (value - mean > s.z_limit * std) & (value > ratio * mean)
        early = (count > 0) & (value > s.early_ratio * window.max())
        return torch.where(count >= s.warmup, late, early)

    def check(self) -> int:
        """Steps thrown away so far (this waits for the device).

        Raises:
            TrainingError: Too many in a row: the run has diverged or its data is broken.
        """
        if int(self.in_a_row) >= self.settings.max_consecutive:
            raise TrainingError(
                f"{int(self.in_a_row)} steps in a row had a NaN, an infinity or a spike and were skipped; "
                "lower the learning rate or look at the data, then resume from the last checkpoint"
            )
        return int(self.skipped)

    def state(self) -> dict[str, Tensor]:
        """Windows and counters by name; live tensors."""
        names = ("losses", "norms", "counts", "skipped", "in_a_row")
        return {f"guard.{name}": getattr(self, name) for name in names}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave."""
        for name, own in self.state().items():
            own.copy_(tensors[name])
