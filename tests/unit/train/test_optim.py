"""Muon and AdamW take the right parameters, update them as defined and leave them alone when told to."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from phi4.train.optim import Optimizer, learning_rate_factor, orthogonalize, split_parameters
from phi4.train.settings import OptimSettings, Stage, TaskShare


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(16, 12)
        self.wide = nn.Linear(12, 32)
        self.same = nn.Linear(12, 32, bias=False)
        self.point = nn.Conv1d(32, 16, 1)
        self.deep = nn.Conv1d(16, 16, 3)
        self.heads = nn.ModuleDict({"blank": nn.Linear(16, 20)})


def toy() -> Toy:
    torch.manual_seed(0)
    return Toy()


def fill_gradients(model: nn.Module, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def everything(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def test_matrices_go_to_muon_and_the_rest_to_adamw() -> None:
    muon, adamw = split_parameters(toy(), everything(toy()))
    assert set(muon) == {"wide.weight", "same.weight", "point.weight"}
    assert "table.weight" in adamw and "deep.weight" in adamw and "heads.blank.weight" in adamw


def test_lora_factors_have_an_adamw_rate_of_their_own() -> None:
    model = nn.Module()
    model.qkv = nn.Module()
    model.qkv.lora_A = nn.ModuleDict({"vision": nn.Linear(12, 8, bias=False)})
    model.qkv.base = nn.Linear(12, 16, bias=False)
    model.norm = nn.LayerNorm(12)
    fill_gradients(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    settings = OptimSettings(lr=0.1, lora_lr=0.01, weight_decay=0.0, clip_norm=0.0)
    optimizer = Optimizer(model, everything(model), settings)
    assert set(optimizer.muon.parameters) == {"qkv.base.weight"}
    optimizer.step(1.0, optimizer.gradient_norm(), torch.tensor(True))
    moved = {name: float((p.detach() - before[name]).abs().mean()) for name, p in model.named_parameters()}
    assert moved["qkv.lora_A.vision.weight"] == pytest.approx(0.01, rel=1e-3)
    assert moved["norm.weight"] == pytest.approx(0.1, rel=1e-3)


def test_orthogonalize_brings_singular_values_near_one_and_keeps_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(3, 24, 12, generator=generator) * 100
    result = orthogonalize(matrices)
    values = torch.linalg.svdvals(result)
    assert float(values.min()) > 0.6 and float(values.max()) < 1.3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    inner = left.mT @ result @ right.mT
    off_diagonal = inner - torch.diag_embed(torch.diagonal(inner, dim1=-2, dim2=-1))
    assert float(off_diagonal.abs().max()) < 1e-3


def test_muon_moves_by_the_orthogonal_nesterov_direction() -> None:
    model = toy()
    optimizer = Optimizer(
        model, everything(model), OptimSettings(muon_lr=0.1, weight_decay=0.0, clip_norm=0.0)
    )
    before = model.wide.weight.detach().clone()
    fill_gradients(model)
    gradient = model.wide.weight.grad
    assert gradient is not None
    expected = (
        orthogonalize((gradient * (1 - 0.95) * 0.95 + gradient * 0.05)[None])[0] * math.sqrt(32 / 12) * 0.1
    )
    optimizer.step(1.0, optimizer.gradient_norm(), torch.tensor(True))
    torch.testing.assert_close(before - model.wide.weight, expected, rtol=1e-4, atol=1e-5)


def test_step_told_to_skip_changes_nothing_even_with_nan_gradients() -> None:
    model = toy()
    optimizer = Optimizer(model, everything(model), OptimSettings())
    fill_gradients(model)
    optimizer.step(1.0, optimizer.gradient_norm(), torch.tensor(True))
    weights = copy.deepcopy(model.state_dict())
    moments = {name: tensor.clone() for name, tensor in optimizer.state().items()}
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, math.nan)
    optimizer.step(1.0, optimizer.gradient_norm(), torch.tensor(False))
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert all(torch.equal(moments[name], tensor) for name, tensor in optimizer.state().items())


def test_gradients_are_clipped_to_the_norm() -> None:
    model = toy()
    optimizer = Optimizer(model, everything(model), OptimSettings(clip_norm=0.5))
    fill_gradients(model)
    norm = optimizer.gradient_norm()
    flat = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(norm, flat.norm())
    optimizer.step(1.0, norm, torch.tensor(True))
    torch.testing.assert_close(optimizer.gradient_norm(), torch.tensor(0.5), rtol=1e-4, atol=0.0)


def test_state_goes_out_and_in_exactly() -> None:
    def steps(optimizer: Optimizer, model: nn.Module, seeds: range) -> None:
        for seed in seeds:
            fill_gradients(model, seed)
            optimizer.step(1.0, optimizer.gradient_norm(), torch.tensor(True))

    straight, resumed = toy(), toy()
    one = Optimizer(straight, everything(straight), OptimSettings())
    steps(one, straight, range(4))
    first = Optimizer(resumed, everything(resumed), OptimSettings())
    steps(first, resumed, range(2))
    second = Optimizer(resumed, everything(resumed), OptimSettings())
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    steps(second, resumed, range(2, 4))
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_muon_rate_of_zero_gives_everything_to_adamw() -> None:
    model = toy()
    optimizer = Optimizer(model, everything(model), OptimSettings(muon_lr=0.0))
    fill_gradients(model)
    optimizer.step(1.0, optimizer.gradient_norm(), torch.tensor(True))
    assert not any(name.startswith("muon.") for name in optimizer.state())
    assert "adamw.exp_avg.wide.weight" in optimizer.state()


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_rate_warms_up_stays_and_falls_to_its_end(decay: str) -> None:
    stage = Stage("s", (TaskShare("t"),), warmup_steps=10, decay=decay, decay_fraction=0.4, final_lr=0.1)  # type: ignore[arg-type]
    rates = [learning_rate_factor(stage, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1.0
    assert set(rates[9:60]) == {1.0}
    assert rates[60:] == sorted(rates[60:], reverse=True) and rates[-1] == pytest.approx(0.1)


def test_rate_does_not_fall_while_the_end_is_unknown_or_decay_is_none() -> None:
    stage = Stage("s", (TaskShare("t"),), warmup_steps=0, lr_scale=0.5)
    assert learning_rate_factor(stage, 10**6, None) == 0.5
    constant = Stage("s", (TaskShare("t"),), warmup_steps=0, decay="none")
    assert learning_rate_factor(constant, 99, 100) == 1.0
