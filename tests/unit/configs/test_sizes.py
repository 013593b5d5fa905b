"""Derived sizes, token counts, routing and adapters of the dataclasses."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest

from phi4.configs import (
    NANO,
    PHI4_MINI,
    PHI4_MULTIMODAL,
    AdapterConfig,
    Phi4Config,
    SpeechConfig,
    VisionConfig,
    route,
    tiny_multimodal,
)
from phi4.errors import InvalidConfig, InvalidRequest


def vision(config: Phi4Config) -> VisionConfig:
    assert config.vision is not None
    return config.vision


def speech(config: Phi4Config) -> SpeechConfig:
    assert config.speech is not None
    return config.speech


def test_released_decoder_has_the_published_dimensions() -> None:
    decoder = PHI4_MINI.decoder
    assert (decoder.head_dim, decoder.rotary_dim, decoder.num_frequencies) == (128, 96, 48)
    assert (decoder.kv_dim, decoder.qkv_dim) == (1024, 5120)
    assert decoder.target_dims("mlp.gate_up_proj") == (3072, 16384)
    assert decoder.target_dims("mlp.down_proj") == (8192, 3072)


@pytest.mark.parametrize(
    ("rows", "cols", "tokens"),
    [
        (32, 32, 545),
        (32, 2, 305),
        (48, 64, 1065),
        (64, 86, 1681),
        (58, 96, 1694),
        (64, 96, 1841),
        (96, 64, 1857),
        (96, 96, 2625),
        (90, 160, 3918),
        (150, 224, 8748),
        (1152, 32, 10065),
    ],
)
def test_image_tokens_follow_the_published_table(rows: int, cols: int, tokens: int) -> None:
    assert vision(PHI4_MULTIMODAL).num_tokens(rows, cols) == tokens


@pytest.mark.parametrize(("frames", "tokens"), [(1, 1), (48, 6), (98, 13), (5998, 750), (179998, 22500)])
def test_audio_tokens_follow_the_published_table(frames: int, tokens: int) -> None:
    assert speech(PHI4_MULTIMODAL).num_tokens(frames) == tokens


def test_feature_layer_leaves_out_the_last_vision_layer() -> None:
    tower = vision(PHI4_MULTIMODAL)
    assert tower.num_layers_used == 26
    assert replace(tower, feature_layer=-1).num_layers_used == 27
    assert replace(tower, feature_layer=3).num_layers_used == 3


def test_nano_counts_tokens_by_its_own_grid() -> None:
    tower = vision(NANO)
    assert (tower.grid, tower.pooled_grid, tower.num_layers_used) == (8, 4, 5)
    # (g/2)^2 + 1 + g/2 + h'(w' + 1)
    assert tower.num_tokens(8, 16) == 16 + 1 + 4 + 4 * 9
    assert NANO.decoder.long_factor[0] == 1.0 and NANO.decoder.long_factor[-1] == 47.77
    assert list(NANO.decoder.long_factor) == sorted(NANO.decoder.long_factor)


def test_subsampled_mels_round_up() -> None:
    assert speech(PHI4_MULTIMODAL).subsampled_mels == 10
    assert replace(speech(NANO), input_size=81).subsampled_mels == 11


@pytest.mark.parametrize(
    ("image", "audio", "own", "adapters", "projector"),
    [
        (False, False, None, (), "speech"),
        (True, False, None, ("vision",), "vision"),
        (False, True, None, ("speech",), "speech"),
        (True, True, None, ("vision",), "vision"),
        (False, False, "mine", ("mine",), "speech"),
        (True, True, "mine", ("vision", "mine"), "vision"),
    ],
)
def test_route_puts_the_modality_s_adapter_first(
    image: bool, audio: bool, own: str | None, adapters: tuple[str, ...], projector: str
) -> None:
    chosen = route(image, audio, own)
    assert (chosen.adapters, chosen.audio_projector) == (adapters, projector)


def test_configs_are_frozen_hashable_and_compare_by_value() -> None:
    assert tiny_multimodal() == tiny_multimodal() != tiny_multimodal(16, 64)
    assert len({tiny_multimodal(), tiny_multimodal(), NANO}) == 2
    with pytest.raises(FrozenInstanceError):
        NANO.decoder.hidden_size = 1  # type: ignore[misc]


def test_adapter_is_found_by_name_or_refused() -> None:
    assert PHI4_MULTIMODAL.adapter("speech").r == 320
    with pytest.raises(InvalidRequest, match=r"'mine'.*\['vision', 'speech'\]"):
        PHI4_MULTIMODAL.adapter("mine")


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "../up"},
        {"name": ""},
        {"r": 1.5},
        {"lora_alpha": float("nan")},
        {"dropout": 1.0},
        {"target_modules": ("lm_head",)},
        {"target_modules": ()},
    ],
)
def test_adapter_with_a_wrong_value_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidConfig, match="must be"):
        AdapterConfig(**{"name": "mine", "r": 4, "lora_alpha": 8, **wrong})  # type: ignore[arg-type]


def test_two_adapters_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="adapters"):
        replace(NANO, adapters=(AdapterConfig("vision", 4, 8), AdapterConfig("vision", 8, 8)))


def test_layout_and_crops_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="layout = 'gguf'"):
        replace(NANO, layout="gguf")  # type: ignore[arg-type]
    with pytest.raises(InvalidConfig, match="max_crops = 0"):
        replace(vision(NANO), max_crops=0)
    with pytest.raises(InvalidConfig, match="num_channels = 1"):
        replace(vision(NANO), num_channels=1)
