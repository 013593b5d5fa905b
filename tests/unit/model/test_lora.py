"""Adapters: chosen per row, summed, unmerged, and free for rows without them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from phi4.configs import AdapterConfig, Phi4Config
from phi4.errors import InvalidRequest
from phi4.model import LoraLinear, ModelBatch, Phi4Model
from phi4.model.lora import AdapterRouter


def batch(*adapters: tuple[str, ...]) -> ModelBatch:
    rows = len(adapters)
    ids = torch.arange(5, 5 + 6 * rows).view(rows, 6)
    return ModelBatch(ids, torch.arange(6).expand(rows, -1), torch.zeros(rows, dtype=torch.long), adapters)


def layer(*adapters: AdapterConfig) -> tuple[LoraLinear, AdapterRouter]:
    """A linear layer of random weights with random adapters."""
    torch.manual_seed(0)
    router = AdapterRouter()
    linear = LoraLinear(nn.Linear(8, 6, bias=False), router)
    for adapter in adapters:
        linear.add(adapter)
        nn.init.normal_(linear.lora_B[adapter.name].weight)
        router.scales[adapter.name], router.dropouts[adapter.name] = adapter.scale, adapter.dropout
    return linear, router


def merged(linear: LoraLinear, *names: str) -> torch.Tensor:
    """The weight with the named adapters added into it."""
    deltas = [linear.router.scales[n] * linear.lora_B[n].weight @ linear.lora_A[n].weight for n in names]
    return linear.weight + sum(deltas, torch.zeros_like(linear.weight))


def test_rows_of_different_tuples_share_a_batch_and_each_gets_its_sum() -> None:
    linear, router = layer(AdapterConfig("vision", 2, 4.0), AdapterConfig("mine", 3, 3.0))
    tuples = [("vision",), (), ("vision", "mine"), ("mine",)]
    hidden = torch.randn(4, 5, 8)
    with router.use(router.make_plan(tuples, "cpu")):
        output = linear(hidden)
    for row, names in enumerate(tuples):
        torch.testing.assert_close(output[row], hidden[row] @ merged(linear, *names).T, atol=1e-5, rtol=0)


def test_all_rows_of_one_adapter_need_no_row_selection() -> None:
    linear, router = layer(AdapterConfig("vision", 2, 4.0))
    plan = router.make_plan([("vision",)] * 3, "cpu")
    assert plan.groups == (("vision", None),)
    hidden = torch.randn(3, 5, 8)
    with router.use(plan):
        torch.testing.assert_close(linear(hidden), hidden @ merged(linear, "vision").T, atol=1e-5, rtol=0)


def test_text_rows_are_bit_equal_to_a_model_without_adapters(model: Phi4Model) -> None:
    with torch.no_grad():
        bare = model(batch((), ()))
        mixed = model(batch((), ("vision",)))
    assert torch.equal(bare[0], mixed[0])
    assert not torch.allclose(bare[1], mixed[1], atol=1e-2)


def test_fresh_adapter_changes_nothing(model: Phi4Model, user_adapter: AdapterConfig) -> None:
    with torch.no_grad():
        before = model(batch(("vision",)))
        model.add_adapter(user_adapter)
        after = model(batch(("vision", "mine")))
    assert torch.equal(before, after)


def test_adapter_acts_on_its_own_matrices_only(model: Phi4Model, user_adapter: AdapterConfig) -> None:
    model.add_adapter(user_adapter)
    owners = {name.split(".lora_")[0].split(".", 3)[3] for name in model.state_dict() if ".mine." in name}
    assert owners == {"self_attn.qkv_proj", "mlp.down_proj"}


def test_gradient_reaches_only_the_adapters_of_the_rows(model: Phi4Model) -> None:
    model(batch(("vision",), ())).square().sum().backward()
    got = {n.split(".")[-2] for n, p in model.named_parameters() if ".lora_" in n and p.grad is not None}
    assert got == {"vision"}


def test_removed_adapter_is_gone_and_its_name_free(model: Phi4Model, user_adapter: AdapterConfig) -> None:
    model.add_adapter(user_adapter)
    model.remove_adapter("mine")
    assert not [name for name in model.state_dict() if ".mine." in name]
    with pytest.raises(InvalidRequest, match="'mine' is not loaded"):
        model(batch(("mine",)))
    model.add_adapter(user_adapter)


def test_two_adapters_of_one_name_are_refused(model: Phi4Model) -> None:
    with pytest.raises(InvalidRequest, match="loaded already"):
        model.add_adapter(AdapterConfig("vision", 2, 2.0))


def test_choice_ends_with_its_block_even_after_an_error(model: Phi4Model) -> None:
    plan = model.router.make_plan([("vision",)], "cpu")
    with pytest.raises(KeyError), model.router.use(plan):
        raise KeyError
    assert model.router.plan.groups == ()


def test_dropout_acts_in_training_only() -> None:
    linear, router = layer(AdapterConfig("speech", 2, 4.0, dropout=0.5))
    hidden = torch.randn(1, 50, 8)
    with router.use(router.make_plan([("speech",)], "cpu")):
        trained = [linear.train()(hidden) for _ in range(2)]
        used = [linear.eval()(hidden) for _ in range(2)]
    assert not torch.equal(*trained)
    assert torch.equal(*used)


@pytest.mark.parametrize("training", [True, False])
def test_adapter_added_later_takes_the_mode_of_its_model(
    config: Phi4Config, user_adapter: AdapterConfig, training: bool
) -> None:
    bare = Phi4Model(config, parts=("text",), adapters=()).train(training)
    bare.add_adapter(user_adapter)
    layers = [module for module in bare.modules() if isinstance(module, LoraLinear)]
    assert layers and {layer.training for layer in layers} == {training}


@pytest.mark.parametrize("name", ["train", "type", "keys", "training"])
def test_adapter_name_that_pytorch_needs_is_refused(model: Phi4Model, name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"'{name}'.*rename"):
        model.add_adapter(AdapterConfig(name, 2, 2.0))
    assert name not in model.router.scales


def test_base_weight_keeps_its_name_and_memory() -> None:
    plain = nn.Linear(8, 6, bias=False)
    assert LoraLinear(plain, AdapterRouter()).weight is plain.weight
