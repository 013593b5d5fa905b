"""The network against the reference implementation, fp32, every kind of prompt and adapter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from phi4.configs import AdapterConfig
from phi4.model import Phi4Model, make_batch
from phi4.types import ModelInputs

LIMIT = 2e-5
VISION, SPEECH = AdapterConfig("vision", 4, 8.0), AdapterConfig("speech", 5, 10.0)
MINE = AdapterConfig("mine", 3, 6.0)
TEXT = tuple(range(5, 25))

PROMPTS: dict[str, tuple[int | str, ...]] = {
    "text": TEXT,
    "image": (5, 6, "full", 7, 8),
    "padded image": (5, 6, "padded", 7, 8),
    "multi-image": (5, "padded", 6, 7, "full", "tall", 8),
    "audio": (5, 6, "second", 7, 8),
    "audio of 40.8 s": (5, 6, "long", 7, 8),
    "audio of 80 s": (5, 6, "two_windows", 7, 8),
    "image and audio": (5, 6, "full", 9, "second", 7, 8),
}
ADAPTED: dict[str, tuple[tuple[int | str, ...], tuple[str, ...]]] = {
    "text, vision adapter": (TEXT, ("vision",)),
    "text, speech adapter": (TEXT, ("speech",)),
    "text, user adapter": (TEXT, ("mine",)),
    "image, vision adapter": (PROMPTS["padded image"], ("vision",)),
    "audio, speech adapter": (PROMPTS["audio"], ("speech",)),
    "image and audio, vision adapter": (PROMPTS["image and audio"], ("vision",)),
    "image, user on vision adapter": (PROMPTS["image"], ("vision", "mine")),
    "audio, user on speech adapter": (PROMPTS["audio"], ("speech", "mine")),
    "text, adapters off": (TEXT, ()),
    "image, adapters off": (PROMPTS["image"], ()),
}


def logits_of(
    model: Phi4Model, row: Any, adapters: tuple[str, ...], original_max: int = 4096
) -> torch.Tensor:
    regime = "long" if len(row.token_ids) > original_max else "short"
    with torch.no_grad():
        return model.logits(model(make_batch([row], [regime], [adapters])))


@pytest.fixture(scope="module")
def plain(ours: Callable[..., Phi4Model], reference: Callable[..., Any]) -> tuple[Phi4Model, Any]:
    return ours(), reference()


@pytest.fixture(scope="module")
def adapted(ours: Callable[..., Phi4Model], reference: Callable[..., Any]) -> tuple[Phi4Model, Any]:
    return ours(user=True), reference(adapters=(VISION, SPEECH, MINE))


@pytest.mark.parity
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", PROMPTS)
def test_logits_equal_the_reference(
    name: str, attention: str, plain: tuple[Phi4Model, Any], prompt: Any, media: Any, parity_table: Any
) -> None:
    model, reference = plain
    model.use_attention(attention)
    case = prompt(*(media.get(item, item) for item in PROMPTS[name]))
    with torch.no_grad():
        expected = reference(**case.kwargs).logits
    difference = (logits_of(model, case.row, ()) - expected).abs().max().item()
    parity_table.add(f"{name} ({attention})", difference, LIMIT)


@pytest.mark.parity
@pytest.mark.parametrize("name", ADAPTED)
def test_logits_with_adapters_equal_the_reference(
    name: str, adapted: tuple[Phi4Model, Any], prompt: Any, media: Any, parity_table: Any
) -> None:
    model, reference = adapted
    items, adapters = ADAPTED[name]
    case = prompt(*(media.get(item, item) for item in items))
    if adapters:
        reference.enable_adapters()
        reference.set_adapter(list(adapters))
    else:
        reference.disable_adapters()
    with torch.no_grad():
        expected = reference(**case.kwargs).logits
    difference = (logits_of(model, case.row, adapters) - expected).abs().max().item()
    parity_table.add(name, difference, LIMIT)


@pytest.mark.parity
def test_adapters_change_the_logits(adapted: tuple[Phi4Model, Any], prompt: Any) -> None:
    row = prompt(*TEXT).row
    seen = [logits_of(adapted[0], row, names) for names in ((), ("vision",), ("speech",), ("vision", "mine"))]
    gaps = [(first - second).abs().max().item() for i, first in enumerate(seen) for second in seen[i + 1 :]]
    assert min(gaps) > 0.01


@pytest.mark.parity
@pytest.mark.parametrize("length", [4095, 4096, 4097])
def test_logits_around_the_longrope_boundary_equal_the_reference(
    length: int, plain: tuple[Phi4Model, Any], prompt: Any, parity_table: Any
) -> None:
    model, reference = plain
    model.use_attention("sdpa")
    case = prompt(*(5 + (7 * i) % 240 for i in range(length)))
    with torch.no_grad():
        expected = reference(**case.kwargs).logits
    difference = (logits_of(model, case.row, ()) - expected).abs().max().item()
    parity_table.add(f"LongRoPE, {length} tokens", difference, LIMIT)


@pytest.mark.parity
def test_generation_across_the_boundary_equals_the_reference(
    ours: Callable[..., Phi4Model], reference: Callable[..., Any], parity_table: Any
) -> None:
    # A boundary at 16 tokens. The reference runs without its cache: with it, transformers 5.23 keeps keys of
    # the short regime past the boundary and leaves its own uncached logits by more than 1.
    model, hf = ours(16, 64), reference(16, 64)
    made = hf.generate(
        torch.arange(5, 15)[None],
        max_new_tokens=30,
        do_sample=False,
        eos_token_id=255,
        use_cache=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    worst = 0.0
    for step, expected in enumerate(made.logits):
        row = ModelInputs(made.sequences[0, : 10 + step].numpy())
        worst = max(worst, (logits_of(model, row, (), 16)[0, -1] - expected[0]).abs().max().item())
    assert len(made.logits) == 30
    parity_table.add("30 greedy steps across the boundary (16)", worst, LIMIT)
