"""Random weights: repeatable, of sensible size, complete."""

from __future__ import annotations

import torch

from phi4.configs import Phi4Config
from phi4.model import AudioBatch, Phi4Model, init_weights, make_batch
from phi4.types import ModelInputs


def made(config: Phi4Config, seed: int) -> dict[str, torch.Tensor]:
    model = Phi4Model(config)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(torch.nan)
    init_weights(model, torch.Generator().manual_seed(seed))
    return model.state_dict()


def test_a_seed_gives_one_model(config: Phi4Config) -> None:
    first, again, other = made(config, 0), made(config, 0), made(config, 1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["decoder.embed_tokens.weight"], other["decoder.embed_tokens.weight"])


def test_every_tensor_is_filled(config: Phi4Config) -> None:
    assert not [name for name, tensor in made(config, 0).items() if not torch.isfinite(tensor).all()]


def test_fresh_adapters_start_at_zero_delta(config: Phi4Config) -> None:
    state = made(config, 0)
    halves = {half: [t for name, t in state.items() if f".lora_{half}." in name] for half in "AB"}
    assert not any(tensor.any() for tensor in halves["B"])
    assert all(tensor.any() for tensor in halves["A"])


def test_separators_and_matrices_are_not_zero(config: Phi4Config) -> None:
    state = made(config, 0)
    for name in ("vision.glb_GN", "vision.sub_GN", "speech.audio_projection.vision.2.weight"):
        assert state[name].any()


def test_first_predictions_are_nearly_uniform(config: Phi4Config) -> None:
    model = Phi4Model(config)
    init_weights(model, torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model.logits(model(make_batch([ModelInputs(torch.arange(5, 60).numpy())], ["short"])))
    assert logits.std() < 0.5


def test_media_start_about_as_long_as_words(config: Phi4Config) -> None:
    model = Phi4Model(config)
    init_weights(model, torch.Generator().manual_seed(0))
    features = torch.randn(1, 200, 80, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        vectors, _ = model.encode_audios(AudioBatch(features, (200,), ("speech",)))
    ratio = vectors.std() / model.decoder.embed_tokens.weight.std()
    assert 0.3 < ratio < 10
