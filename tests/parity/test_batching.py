"""A row gives the same logits in any company: other lengths, media, adapters and regimes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from phi4.model import Phi4Model, make_batch

LIMIT = 2e-5

ROWS: dict[str, tuple[tuple[int | str, ...], tuple[str, ...]]] = {
    "text": ((5, 6, 7), ()),
    "longer text": (tuple(range(5, 60)), ()),
    "padded image": ((5, "padded", 7, 8), ("vision",)),
    "image with user adapter": ((9, 10, "full", 7), ("vision", "mine")),
    "audio": ((5, "second", 8), ("speech",)),
    "short audio": ((5, 6, 7, "short", 8), ("speech", "mine")),
    "audio of 40.8 s": ((5, "long", 7), ("speech",)),
    "image and audio": ((5, "full", 6, "second", 7), ("vision",)),
    "two audios": (("short", 6, "second", 7), ("speech",)),
    "text with user adapter": ((40, 41, 42, 43), ("mine",)),
}


@pytest.fixture(scope="module")
def model(ours: Callable[..., Phi4Model]) -> Phi4Model:
    # A boundary at 600 tokens, so that rows of both regimes share a batch.
    return ours(600, 4096, user=True)


@pytest.mark.parity
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_batched_rows_equal_rows_alone(
    attention: str, model: Phi4Model, prompt: Any, media: Any, parity_table: Any
) -> None:
    model.use_attention(attention)
    rows = [prompt(*(media.get(item, item) for item in items)).row for items, _ in ROWS.values()]
    adapters = [names for _, names in ROWS.values()]
    regimes = ["long" if len(row.token_ids) > 600 else "short" for row in rows]
    assert set(regimes) == {"short", "long"}
    with torch.no_grad():
        together = model.logits(model(make_batch(rows, regimes, adapters)))
        for index, name in enumerate(ROWS):
            batch = make_batch([rows[index]], [regimes[index]], [adapters[index]])
            alone = model.logits(model(batch))[0]
            difference = (together[index, : len(alone)] - alone).abs().max().item()
            parity_table.add(f"batched equals alone: {name} ({attention})", difference, LIMIT)


@pytest.mark.parity
def test_recordings_of_any_length_are_encoded_as_alone(model: Phi4Model, parity_table: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    assert model.speech is not None
    # 4000 frames fill a window, 4001 open a second one; 8007 cross a piece of the subsampling.
    lengths = [1, 7, 8, 9, 300, 301, 3999, 4000, 4001, 8007]
    features = torch.randn(len(lengths), max(lengths), 80, generator=generator)
    with torch.no_grad():
        together = model.speech.encoder(features, lengths, model.encoder_attention)
        sizes = [-(-length // 8) for length in lengths]
        worst = 0.0
        for index, part in enumerate(together.split(sizes)):
            length = lengths[index]
            alone = model.speech.encoder(
                features[index : index + 1, :length], [length], model.encoder_attention
            )
            assert alone.shape == part.shape
            worst = max(worst, (alone - part).abs().max().item())
    parity_table.add("speech encoder, ten lengths in one batch", worst, LIMIT)


@pytest.mark.parity
def test_what_stands_in_padded_frames_does_not_matter(model: Phi4Model) -> None:
    features = torch.randn(2, 200, 80, generator=torch.Generator().manual_seed(4))
    dirty = features.clone()
    dirty[1, 90:] = 1e4
    assert model.speech is not None
    with torch.no_grad():
        first = model.speech.encoder(features, [200, 90], model.encoder_attention)
        second = model.speech.encoder(dirty, [200, 90], model.encoder_attention)
    assert torch.equal(first, second)


@pytest.mark.parity
def test_reference_audio_batches_leak_where_ours_do_not(
    reference: Callable[..., Any], model: Phi4Model, media: Any
) -> None:
    # The reason the reference is no truth for batched audio: its own row changes with the company.
    hf = reference().model.embed_tokens_extend.audio_embed.encoder
    first, second = (torch.from_numpy(media[name].features)[None] for name in ("second", "short"))
    padded = torch.zeros(2, 98, 80)
    padded[0], padded[1, :41] = first[0], second[0]
    mask = torch.arange(98)[None] < torch.tensor([[98], [41]])
    assert model.speech is not None
    with torch.no_grad():
        leak = (hf(padded, mask)[1, :6] - hf(second, None)[0]).abs().max().item()
        ours = model.speech.encoder(padded, [98, 41], model.encoder_attention)[13:]
    assert leak > 1e-3
    with torch.no_grad():
        assert torch.allclose(ours, hf(second, None)[0], atol=LIMIT)
