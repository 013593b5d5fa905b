"""The decoder: who calls what, causality, cached equals uncached, cast order."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from phi4.configs import tiny_multimodal
from phi4.model import CausalAttend, Decoder, Phi4Model, select_attention
from phi4.model.decoder import RMSNorm
from phi4.model.rotary import Angles


def angles_of(model: Phi4Model, start: int, stop: int) -> Angles:
    return model.rotary(torch.arange(start, stop)[None], torch.zeros(1, dtype=torch.long), model.dtype)


class Recorder:
    """An `Attend` that keeps what it was given and mixes causally."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = []
        self.plain = CausalAttend(select_attention("cpu"))

    def __call__(self, layer_index: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        self.calls.append((layer_index, tuple(query.shape), tuple(key.shape), tuple(value.shape)))
        return self.plain(layer_index, query, key, value)


class Cache:
    """The simplest cache: all keys and values so far, joined."""

    def __init__(self) -> None:
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, layer_index: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if layer_index in self.kept:
            old_key, old_value = self.kept[layer_index]
            key, value = torch.cat((old_key, key), 2), torch.cat((old_value, value), 2)
        self.kept[layer_index] = key, value
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril(key.shape[2] - query.shape[2])
        return select_attention("cpu", "eager")(query, key, value, mask=mask)


def test_attend_is_called_once_per_layer_in_order_with_grouped_heads(model: Phi4Model) -> None:
    recorder = Recorder()
    model.decoder(model.decoder.embed(torch.arange(5)[None]), angles_of(model, 0, 5), recorder)
    assert recorder.calls == [(i, (1, 2, 5, 32), (1, 1, 5, 32), (1, 1, 5, 32)) for i in range(2)]


def test_cached_decoding_equals_one_pass(model: Phi4Model) -> None:
    ids = torch.tensor([[9, 8, 7, 6, 5, 4, 3]])
    with torch.no_grad():
        whole = model.decoder(model.decoder.embed(ids), angles_of(model, 0, 7), Recorder())
        cache = Cache()
        parts = [
            model.decoder(model.decoder.embed(ids[:, start:stop]), angles_of(model, start, stop), cache)
            for start, stop in ((0, 4), (4, 5), (5, 7))
        ]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=0)


def test_later_tokens_do_not_change_earlier_states(model: Phi4Model) -> None:
    with torch.no_grad():
        first, second = (
            model.decoder(model.decoder.embed(torch.tensor([ids])), angles_of(model, 0, 4), Recorder())
            for ids in ([5, 6, 7, 8], [5, 6, 7, 99])
        )
    torch.testing.assert_close(first[:, :3], second[:, :3], atol=1e-6, rtol=0)
    assert not torch.allclose(first[:, 3], second[:, 3], atol=1e-2)


def test_norm_is_cast_back_before_the_weight() -> None:
    norm = RMSNorm(64, 1e-5).bfloat16()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        norm.weight.copy_(1 + 0.3 * torch.randn(64, generator=generator))
    hidden = 3 * torch.randn(8, 64, generator=generator).bfloat16()
    precise = hidden.float() * torch.rsqrt(hidden.float().pow(2).mean(-1, keepdim=True) + 1e-5)
    assert torch.equal(norm(hidden), precise.bfloat16() * norm.weight)


def test_tied_model_has_no_head_and_scores_with_the_embedding(model: Phi4Model) -> None:
    assert "decoder.lm_head.weight" not in model.state_dict()
    hidden = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.logits(hidden), hidden @ model.decoder.embed_tokens.weight.T)


def test_untied_model_scores_with_its_own_head() -> None:
    decoder = Decoder(replace(tiny_multimodal().decoder, tie_word_embeddings=False))
    hidden = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(decoder.logits(hidden), hidden @ decoder.lm_head.weight.T)
