"""Recordings: windows, masks, biases, gates, and any company."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from phi4.configs import SpeechConfig
from phi4.model import Phi4Model, audio_batch, select_attention
from phi4.model.speech import subsampling
from phi4.model.speech.conformer import DepthwiseSeparable, GatedLinear, RelativeBias
from phi4.model.speech.encoder import SpeechEncoder
from phi4.types import AudioArrays

Recording = Callable[[int, int], AudioArrays]
ATTENTION = select_attention("cpu")
SPEECH = SpeechConfig(
    hidden_size=32,
    num_attention_heads=4,
    intermediate_size=48,
    num_blocks=2,
    nemo_conv_channels=16,
    depthwise_separable_out_channel=32,
    ext_pw_out_channel=32,
    max_window_tokens=10,
)


@pytest.fixture
def encoder() -> SpeechEncoder:
    """A speech encoder with windows of 10 positions (80 frames)."""
    torch.manual_seed(0)
    return SpeechEncoder(SPEECH).eval()


@torch.no_grad()
def encode(encoder: SpeechEncoder, features: torch.Tensor, num_frames: list[int]) -> torch.Tensor:
    return encoder(features, num_frames, ATTENTION)


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("num_frames", [1, 8, 9, 79, 80, 81, 160, 161, 245])
def test_eight_frames_give_one_vector(num_frames: int, encoder: SpeechEncoder) -> None:
    assert encode(encoder, noise(0, 1, num_frames, 80), [num_frames]).shape == (-(-num_frames // 8), 32)


def test_recordings_of_any_length_equal_themselves_alone(encoder: SpeechEncoder) -> None:
    lengths = [1, 245, 8, 79, 80, 81, 17, 160]
    features = noise(1, len(lengths), max(lengths), 80)
    together = encode(encoder, features, lengths).split([-(-length // 8) for length in lengths])
    for index, length in enumerate(lengths):
        alone = encode(encoder, features[index : index + 1, :length], [length])
        torch.testing.assert_close(together[index], alone, atol=2e-6, rtol=0)


def test_long_recording_is_windows_whose_zero_tail_is_attended(encoder: SpeechEncoder) -> None:
    features = noise(2, 1, 120, 80)
    with torch.no_grad():
        hidden = encoder.subsample(features, [120])  # [1, 15, D]
        first = encoder.run_blocks(hidden[:, :10], None, ATTENTION)
        tail = functional.pad(hidden[:, 10:], (0, 0, 0, 5))
        second = encoder.run_blocks(tail, None, ATTENTION)[:, :5]
        masked = encoder.run_blocks(tail, [5], ATTENTION)[:, :5]
    whole = encode(encoder, features, [120])
    torch.testing.assert_close(whole, torch.cat((first, second), 1)[0], atol=1e-6, rtol=0)
    assert not torch.allclose(second, masked, atol=1e-3)


def test_pieces_of_a_long_recording_join_without_a_seam(
    encoder: SpeechEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = noise(3, 2, 245, 80)
    whole = encode(encoder, features, [245, 170])
    monkeypatch.setattr(subsampling, "PIECE_FRAMES", 64)
    torch.testing.assert_close(encode(encoder, features, [245, 170]), whole, atol=2e-6, rtol=0)


def test_bias_is_looked_up_by_key_minus_query_clipped() -> None:
    bias = RelativeBias(replace(SPEECH, bias_max_distance=3))
    table = bias.bias_values.weight
    made = bias(6)
    for query in range(6):
        for key in range(6):
            index = min(max(key - query, -3), 2) + 3
            assert torch.equal(made[0, :, query, key], table[index])


def test_gate_is_the_second_half() -> None:
    layer = GatedLinear(4, 3)
    value, gate = layer.linear(hidden := noise(4, 2, 4)).chunk(2, -1)
    torch.testing.assert_close(layer(hidden), value * functional.silu(gate))


def test_convolution_does_not_look_ahead() -> None:
    conv = DepthwiseSeparable(SPEECH)
    hidden = noise(5, 1, 7, 32)
    changed = hidden.clone()
    changed[:, 4:] += 1
    first, second = conv(hidden), conv(changed)
    assert first.shape == hidden.shape
    assert torch.equal(first[:, :4], second[:, :4])
    assert not torch.equal(first[:, 4:], second[:, 4:])


def test_each_recording_goes_through_its_projector(model: Phi4Model, recording: Recording) -> None:
    audios = [recording(0, 50), recording(1, 30)]
    with torch.no_grad():
        mixed, lengths = model.encode_audios(audio_batch(audios, ["vision", "speech"]))
        speech, _ = model.encode_audios(audio_batch(audios, ["speech", "speech"]))
        vision, _ = model.encode_audios(audio_batch(audios, ["vision", "vision"]))
    assert lengths == (7, 4)
    torch.testing.assert_close(mixed, torch.cat((vision[:7], speech[7:])), atol=1e-6, rtol=0)
    assert not torch.allclose(vision, speech, atol=1e-3)


def test_every_parameter_of_the_encoder_learns(model: Phi4Model, recording: Recording) -> None:
    audios = [recording(0, 50), recording(1, 30)]
    model.encode_audios(audio_batch(audios, ["vision", "speech"]))[0].square().sum().backward()
    assert model.speech is not None
    silent = [n for n, p in model.speech.named_parameters() if p.grad is None or not p.grad.any()]
    # A constant added to every key moves all scores of a query alike, so this bias has no gradient.
    assert not [name for name in silent if not name.endswith("linear_k.bias")]
