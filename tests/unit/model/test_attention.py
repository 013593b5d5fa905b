"""Attention kernels agree with the definition, and the choice of a kernel is explicit."""

from __future__ import annotations

import pytest
import torch

from phi4.errors import InvalidRequest
from phi4.model import CausalAttend, causal_mask, select_attention
from phi4.model.attention import flash_attention


def heads(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_definition(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """One head and one query at a time, in float64."""
    output = torch.zeros_like(query, dtype=torch.float64)
    groups = query.shape[1] // key.shape[1]
    for b, n, t in (
        (b, n, t) for b in range(2) for n in range(query.shape[1]) for t in range(query.shape[2])
    ):
        k, v = key[b, n // groups].double(), value[b, n // groups].double()
        scores = k @ query[b, n, t].double() * query.shape[-1] ** -0.5 + bias[0, n, t].double()
        scores[~mask[b, 0, t]] = -torch.inf
        output[b, n, t] = scores.softmax(0) @ v
    return output.float()


@pytest.mark.parametrize("name", ["eager", "sdpa"])
def test_kernels_follow_the_definition_with_grouped_heads_mask_and_bias(name: str) -> None:
    query, key, value = heads(0, 2, 6, 5, 8), heads(1, 2, 2, 7, 8), heads(2, 2, 2, 7, 8)
    mask = heads(3, 2, 1, 5, 7) > -0.5
    mask[..., 0] = True
    bias = heads(4, 1, 6, 5, 7)
    mixed = select_attention("cpu", name)(query, key, value, mask=mask, bias=bias)
    torch.testing.assert_close(mixed, by_definition(query, key, value, mask, bias), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["eager", "sdpa"])
def test_causal_equals_a_lower_triangular_mask(name: str) -> None:
    attention = select_attention("cpu", name)
    query, key, value = heads(0, 2, 4, 6, 8), heads(1, 2, 2, 6, 8), heads(2, 2, 2, 6, 8)
    lower = torch.ones(1, 1, 6, 6, dtype=torch.bool).tril()
    masked = attention(query, key, value, mask=lower)
    torch.testing.assert_close(attention(query, key, value, is_causal=True), masked, atol=1e-6, rtol=0)


def test_query_without_any_key_stays_finite() -> None:
    query, key, value = (heads(seed, 1, 2, 3, 4).requires_grad_() for seed in range(3))
    mask = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    mixed = select_attention("cpu", "eager")(query, key, value, mask=mask)
    mixed.sum().backward()
    assert torch.isfinite(mixed).all()
    assert query.grad is not None
    assert torch.isfinite(query.grad).all()


def test_default_on_a_cpu_is_sdpa() -> None:
    assert select_attention("cpu").name == "sdpa"


@pytest.mark.parametrize(
    ("name", "words"), [("flsh", "choose one of"), ("flash", "choose 'sdpa' or 'eager'")]
)
def test_impossible_kernels_are_refused_with_what_to_do(name: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        select_attention("cpu", name)


def test_flash_kernel_swaps_heads_and_positions_and_leaves_the_rest_to_sdpa() -> None:
    calls: list[tuple[int, ...]] = []

    def flash(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: bool) -> torch.Tensor:
        # The contract of flash_attn_func: [B, T, N, H] in and out. The package itself needs a GPU.
        calls.append(tuple(query.shape))
        swapped = (tensor.transpose(1, 2) for tensor in (query, key, value))
        return select_attention("cpu", "sdpa")(*swapped, is_causal=causal).transpose(1, 2)

    kernel = flash_attention(flash)
    full = heads(0, 2, 6, 5, 8), heads(1, 2, 2, 5, 8), heads(2, 2, 2, 5, 8)
    half = tuple(tensor.bfloat16() for tensor in full)
    eager = select_attention("cpu", "eager")
    torch.testing.assert_close(
        kernel(*half, is_causal=True).float(), eager(*full, is_causal=True), atol=0.03, rtol=0
    )
    assert calls == [(2, 5, 6, 8)]
    mask = torch.ones(1, 1, 5, 5, dtype=torch.bool).tril()
    torch.testing.assert_close(kernel(*full, mask=mask), eager(*full, mask=mask), atol=1e-6, rtol=0)
    kernel(*half, mask=mask)
    kernel(*full, is_causal=True)
    assert len(calls) == 1


def test_mask_is_only_made_when_it_is_needed() -> None:
    assert causal_mask(None) is None


def test_mask_keeps_other_segments_and_later_positions_out() -> None:
    allowed = causal_mask(torch.tensor([[0, 0, 1, 1], [4, 4, 4, 2]]))
    assert allowed is not None and allowed.shape == (2, 1, 4, 4)
    assert allowed[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert allowed[1, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]]


def test_causal_attend_ignores_the_layer_and_later_positions() -> None:
    attend = CausalAttend(select_attention("cpu", "eager"))
    query, key, value = heads(0, 1, 2, 4, 8), heads(1, 1, 1, 4, 8), heads(2, 1, 1, 4, 8)
    full = attend(0, query, key, value)
    first = attend(7, query[:, :, :2], key[:, :, :2], value[:, :, :2])
    torch.testing.assert_close(full[:, :, :2], first, atol=1e-6, rtol=0)
