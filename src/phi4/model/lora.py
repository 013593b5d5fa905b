"""Mixture of LoRAs: adapters of the decoder's linear layers, chosen per row.

`install_lora` swaps linear layers of a finished decoder for `LoraLinear`, which has the same name and
weight and holds any number of adapters beside it. Which rows use which adapters is said once per
forward pass, by entering `AdapterRouter.rows`; rows without adapters cost nothing. Deltas are applied
unmerged (base product, A, B, scale, add), as bf16 parity needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from phi4.configs import AdapterConfig
from phi4.errors import InvalidRequest
from phi4.model.decoder import Decoder


@dataclass(frozen=True)
class AdapterPlan:
    """Which rows each adapter acts on in one forward pass.

    Attributes:
        groups: (adapter, rows) in the order the deltas are added; rows is `[n]` int64, None = every row.
    """

    groups: tuple[tuple[str, Tensor | None], ...] = ()


class AdapterRouter:
    """The adapter choice of one model, shared by all its `LoraLinear`s.

    Used by one thread at a time, like the model itself. Keep `rows` entered during the backward pass when
    activations are recomputed there.
    """

    def __init__(self) -> None:
        self.scales: dict[str, float] = {}
        self.dropouts: dict[str, float] = {}
        self.plan = AdapterPlan()

    def make_plan(self, adapters: Sequence[tuple[str, ...]], device: torch.device | str) -> AdapterPlan:
        """Group the rows of a batch by adapter.

        Args:
            adapters: One ordered tuple per row (per entry of the first dimension of the hidden states).
            device: Where the hidden states are.

        Raises:
            InvalidRequest: A name that is not installed.
        """
        unknown = sorted({name for names in adapters for name in names} - set(self.scales))
        if unknown:
            loaded = ", ".join(sorted(self.scales)) or "none"
            raise InvalidRequest(f"adapter {unknown[0]!r} is not loaded; loaded adapters: {loaded}")
        rows_of: dict[tuple[int, str], list[int]] = {}
        for row, names in enumerate(adapters):
            for place, name in enumerate(names):
                rows_of.setdefault((place, name), []).append(row)
        groups = []
        for (_, name), rows in sorted(rows_of.items()):
            everyone = len(rows) == len(adapters)
            groups.append((name, None if everyone else torch.tensor(rows, dtype=torch.int64, device=device)))
        return AdapterPlan(tuple(groups))

    @contextmanager
    def use(self, plan: AdapterPlan) -> Iterator[None]:
        """Apply `plan` to every forward pass inside the `with`."""
        before, self.plan = self.plan, plan
        try:
            yield
        finally:
            self.plan = before


class LoraLinear(nn.Linear):
    """A bias-free linear layer with low-rank adapters beside its weight.

    Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021: y = W x + scale * B(A x).
    """

    def __init__(self, linear: nn.Linear, router: AdapterRouter) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        assert len(list(linear.parameters())) == 1, "the decoder's linear layers have no bias"
        self.weight = linear.weight
        self.router = router
        self.lora_A = nn.ModuleDict()
        self.lora_B = nn.ModuleDict()
        # A new module is in training mode; in a model that serves, that would switch dropout on.
        self.train(linear.training)

    def add(self, adapter: AdapterConfig) -> None:
        """Add an adapter whose delta is zero, beside the base weight's dtype and device."""
        device, dtype = self.weight.device, self.weight.dtype
        narrow = nn.Linear(self.in_features, adapter.r, bias=False, device=device, dtype=dtype)
        wide = nn.Linear(adapter.r, self.out_features, bias=False, device=device, dtype=dtype)
        self.lora_A[adapter.name], self.lora_B[adapter.name] = narrow, wide
        nn.init.zeros_(wide.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[B, T, in]` to `[B, T, out]`."""
        output = super().forward(hidden)
        for name, rows in self.router.plan.groups:
            if name not in self.lora_A:
                continue
            chosen = hidden if rows is None else hidden.index_select(0, rows)
            chosen = functional.dropout(chosen, self.router.dropouts[name], self.training)
            delta = self.lora_B[name](self.lora_A[name](chosen)) * self.router.scales[name]
            output = output + delta if rows is None else output.index_add(0, rows, delta)
        return output


def install_lora(
    decoder: Decoder, adapters: Sequence[AdapterConfig], router: AdapterRouter | None = None
) -> AdapterRouter:
    """Add adapters to a decoder, replacing plain linear layers where needed.

    Args:
        decoder: Changed in place; base weights are kept, not copied.
        adapters: What to add; each acts on its own `target_modules` of every layer.
        router: The decoder's router when it already has adapters; None makes one.

    Returns:
        The router through which rows choose.

    Raises:
        InvalidRequest: An adapter of that name is already there, or the name cannot be a module's.
    """
    router = router or AdapterRouter()
    for adapter in adapters:
        if adapter.name in router.scales:
            raise InvalidRequest(f"adapter {adapter.name!r} is loaded already: give this one another name")
        if hasattr(nn.ModuleDict, adapter.name) or adapter.name == "training":
            raise InvalidRequest(
                f"adapter name {adapter.name!r} is one that PyTorch uses itself: rename the adapter's folder"
            )
        for layer in decoder.layers:
            for target in adapter.target_modules:
                _wrapped(layer, target, router).add(adapter)
        router.scales[adapter.name] = adapter.scale
        router.dropouts[adapter.name] = adapter.dropout
    return router


def remove_lora(decoder: Decoder, name: str, router: AdapterRouter) -> None:
    """Take an adapter off a decoder; the layers stay `LoraLinear`."""
    for module in decoder.modules():
        if isinstance(module, LoraLinear) and name in module.lora_A:
            del module.lora_A[name], module.lora_B[name]
    router.scales.pop(name, None)
    router.dropouts.pop(name, None)


def _wrapped(layer: nn.Module, target: str, router: AdapterRouter) -> LoraLinear:
    """The `LoraLinear` at a place of a layer, made there first if it is still a plain one."""
    parent_name, _, name = target.rpartition(".")
    parent = layer.get_submodule(parent_name)
    linear = getattr(parent, name)
    if not isinstance(linear, LoraLinear):
        linear = LoraLinear(linear, router)
        setattr(parent, name, linear)
    return linear
