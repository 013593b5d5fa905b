"""The optimiser: Muon for matrices, AdamW for everything else, both able to skip a step on the device.

Which one a parameter gets is decided by its shape and owner (`split_parameters`): matrices of linear
maps and 1x1 convolutions go to Muon; embeddings, norms, biases, other convolutions, training heads and
LoRA factors to AdamW. The last have a rate of their own: Muon moves the thin factors of a LoRA as far as
whole matrices, in few directions, which shakes their product. `Optimizer.step` takes the guard's verdict
as a device tensor, so a bad step leaves parameters and moments untouched without the host ever waiting.
State goes in and out as named tensors for `state.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from phi4.errors import TrainingError
from phi4.train.settings import OptimSettings, Stage

# Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), the quintic
# whose slope at zero is largest while singular values still end near one.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_MIN_MUON_SIDE = 8
_LORA = re.compile(r"\.lora_[AB]\.")


def learning_rate_factor(stage: Stage, step: int, total: int | None) -> float:
    """Multiplier of the peak learning rate at `step` of a stage, in (0, 1] times `lr_scale`.

    Linear warm-up, then constant, then decay to `final_lr` over the last `decay_fraction`. While
    `total` is None (a time budget whose number of steps is not fixed yet) there is no decay.
    """
    factor = min(1.0, (step + 1) / stage.warmup_steps) if stage.warmup_steps else 1.0
    start = total if total is None else total - round(total * stage.decay_fraction)
    if stage.decay != "none" and total is not None and start is not None and step >= start:
        progress = min(1.0, (step + 1 - start) / max(1, total - start))
        shape = 1.0 - progress if stage.decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
        factor = min(factor, stage.final_lr + (1.0 - stage.final_lr) * shape)
    return factor * stage.lr_scale


def _is_matrix(parameter: nn.Parameter) -> bool:
    rows, *rest = parameter.shape if parameter.ndim else (0,)
    if not rest or math.prod(rest[1:]) != 1:
        return False
    return min(rows, rest[0]) >= _MIN_MUON_SIDE


def split_parameters(
    model: nn.Module, names: Iterable[str], heads: str = "heads."
) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """(Muon's, AdamW's) parameters among `names`; embeddings, LoRA and modules under `heads` are AdamW's."""
    tables = {
        f"{prefix}.{leaf}" if prefix else leaf
        for prefix, module in model.named_modules()
        if isinstance(module, nn.Embedding)
        for leaf, _ in module.named_parameters(recurse=False)
    }
    parameters = dict(model.named_parameters())
    muon: dict[str, nn.Parameter] = {}
    adamw: dict[str, nn.Parameter] = {}
    for name in names:
        special = name in tables or name.startswith(heads) or _LORA.search(name)
        ours = _is_matrix(parameters[name]) and not special
        (muon if ours else adamw)[name] = parameters[name]
    return muon, adamw


def orthogonalize(matrices: Tensor, dtype: torch.dtype = torch.float32, rounds: int = 5) -> Tensor:
    """Push the singular values of `[n, rows, cols]` towards one (Newton-Schulz iteration).

    Args:
        matrices: Stacked matrices; the result has their dtype.
        dtype: Type of the products; the iteration tolerates bf16, which is several times faster.
        rounds: Steps of the iteration.
    """
    a, b, c = _QUINTIC
    x = matrices.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT  # [n, rows, rows]
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


class Muon:
    """Momentum, made orthogonal, for matrices; equal shapes are stacked into one batched product.

    Args:
        parameters: Name to matrix (or 1x1 convolution kernel).
        momentum: Decay of the running gradient; the update looks ahead (Nesterov).
        weight_decay: Decoupled, multiplied by the learning rate.
        dtype: Type of the products in `orthogonalize`.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], momentum: float, weight_decay: float, dtype: torch.dtype
    ) -> None:
        self.parameters = dict(parameters)
        self.dtype = dtype
        self.momentum, self.weight_decay = momentum, weight_decay
        self.buffers = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in self.parameters.items()}

    @torch.no_grad()
    def step(self, lr: float, keep: Tensor) -> None:
        """Update every matrix that has a gradient; where `keep` (0-dim bool) is False nothing changes."""
        groups: dict[tuple[int, ...], list[str]] = {}
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                groups.setdefault((parameter.shape[0], parameter.shape[1]), []).append(name)
        for shape, names in groups.items():
            self._step_group(shape, names, lr, keep)

    def _step_group(self, shape: tuple[int, ...], names: list[str], lr: float, keep: Tensor) -> None:
        parameters: list[Tensor] = [self.parameters[name] for name in names]
        buffers = [self.buffers[name] for name in names]
        grads = torch.stack([p.grad.reshape(shape) for p in parameters if p.grad is not None]).float()
        old = torch.stack([buffer.reshape(shape) for buffer in buffers])
        new = old.lerp(grads, 1.0 - self.momentum)
        update = orthogonalize(grads.lerp(new, self.momentum), self.dtype)
        scale = lr * math.sqrt(max(1.0, shape[0] / shape[1]))
        update = torch.where(keep, update * -scale, 0.0)
        torch._foreach_copy_(
            buffers, [t.reshape(b.shape) for t, b in zip(torch.where(keep, new, old), buffers, strict=True)]
        )
        if self.weight_decay:
            decay = torch.where(keep, 1.0 - lr * self.weight_decay, 1.0)
            torch._foreach_mul_(parameters, decay)
        torch._foreach_add_(parameters, [t.reshape(p.shape) for t, p in zip(update, parameters, strict=True)])


class Optimizer:
    """Both optimisers behind one `step`.

    Args:
        model: Its parameters are updated in place.
        names: The trainable ones.
        settings: Rates and decays.
        muon_dtype: bf16 where the run computes in bf16 anyway; moments and weights stay fp32.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Iterable[str],
        settings: OptimSettings,
        muon_dtype: torch.dtype = torch.float32,
    ) -> None:
        self.settings = settings
        chosen = list(names)
        muon, adamw = split_parameters(model, chosen)
        if not settings.muon_lr:
            muon, adamw = {}, {**muon, **adamw}
        self.muon = Muon(muon, settings.momentum, settings.weight_decay, muon_dtype)
        self.names = {id(p): name for name, p in adamw.items()}
        lora = [p for name, p in adamw.items() if _LORA.search(name)]
        matrices = [p for name, p in adamw.items() if p.ndim >= 2 and not _LORA.search(name)]
        vectors = [p for p in adamw.values() if p.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": settings.weight_decay, "peak": settings.lr},
            {"params": vectors, "weight_decay": 0.0, "peak": settings.lr},
            {"params": lora, "weight_decay": 0.0, "peak": settings.lora_lr},
        ]
        groups = [group for group in groups if group["params"]]
        self.adamw = (
            torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True)
            if groups
            else None
        )
        parameters = dict(model.named_parameters())
        self.parameters = [parameters[name] for name in chosen]
        if not self.parameters:
            raise TrainingError("nothing is trainable: every parameter of this stage is frozen")

    def zero_grad(self) -> None:
        """Drop every gradient."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def gradient_norm(self) -> Tensor:
        """Global 2-norm of the gradients that exist, 0-dim float32, still on the device."""
        grads = [p.grad for p in self.parameters if p.grad is not None]
        norms = torch._foreach_norm(grads)
        return torch.stack([norm.float() for norm in norms]).square().sum().sqrt()

    @torch.no_grad()
    def step(self, factor: float, norm: Tensor, keep: Tensor) -> None:
        """Clip by `norm` and apply, unless `keep` (0-dim bool on the device) is False."""
        grads = [p.grad for p in self.parameters if p.grad is not None]
        if self.settings.clip_norm:
            torch._foreach_mul_(grads, torch.clamp(self.settings.clip_norm / (norm + 1e-6), max=1.0))
        if self.adamw is not None:
            for group in self.adamw.param_groups:
                group["lr"] = group["peak"] * factor
            # Fused AdamW leaves parameters, moments and step counts alone where found_inf is 1.
            self.adamw.found_inf = (~keep).float()  # type: ignore[attr-defined]
            self.adamw.step()
        self.muon.step(self.settings.muon_lr * factor, keep)

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts by name; the tensors are live, not copies."""
        tensors = {f"muon.{name}": buffer for name, buffer in self.muon.buffers.items()}
        for parameter, slots in (self.adamw.state if self.adamw is not None else {}).items():
            for slot, value in slots.items():
                tensors[f"adamw.{slot}.{self.names[id(parameter)]}"] = value
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over moments by name; parameters without saved state start fresh."""
        for name, buffer in self.muon.buffers.items():
            if f"muon.{name}" in tensors:
                buffer.copy_(tensors[f"muon.{name}"])
        for group in self.adamw.param_groups if self.adamw is not None else ():
            for parameter in group["params"]:
                slots = {
                    slot: tensors[f"adamw.{slot}.{self.names[id(parameter)]}"].to(parameter.device, copy=True)
                    for slot in ("step", "exp_avg", "exp_avg_sq")
                    if f"adamw.{slot}.{self.names[id(parameter)]}" in tensors
                }
                if slots and self.adamw is not None:
                    self.adamw.state[parameter] = slots
