"""Released configs of all three layouts become the right `Phi4Config`; wrong ones are refused by name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from phi4.configs import PHI4_MINI, PHI4_MULTIMODAL, read_config, tiny_multimodal
from phi4.errors import InvalidConfig

Released = Callable[[str], dict[str, Any]]


def set_path(raw: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    inner = raw
    *steps, last = path.split(".")
    for step in steps:
        inner = inner[step]
    inner[last] = value
    return raw


def test_released_mini_is_the_mini_preset(released: Released) -> None:
    assert read_config(released("phi4-mini")) == PHI4_MINI


def test_released_multimodal_is_the_multimodal_preset(released: Released) -> None:
    config = read_config(released("phi4-multimodal"))
    assert config == PHI4_MULTIMODAL
    assert config.vision_from_tensors
    assert config.modalities == ("text", "vision", "speech")
    assert [adapter.scale for adapter in config.adapters] == [2.0, 2.0]


def test_hf_native_config_has_text_fields_at_top_level(released: Released) -> None:
    expected = replace(tiny_multimodal(), adapters=(), dtype="bfloat16")
    config = read_config(released("tiny-hf"))
    assert config == expected
    assert not config.vision_from_tensors


def test_both_rope_spellings_give_one_config(released: Released) -> None:
    raw = released("tiny-hf")
    rope = raw.pop("rope_parameters")
    raw["rope_scaling"] = {key: rope[key] for key in ("short_factor", "long_factor")} | {"type": "longrope"}
    raw["rope_theta"], raw["partial_rotary_factor"] = rope["rope_theta"], rope["partial_rotary_factor"]
    assert read_config(raw) == read_config(released("tiny-hf"))


def test_original_positions_inside_rope_parameters_are_enough(released: Released) -> None:
    raw = released("tiny-hf")
    raw["rope_parameters"]["original_max_position_embeddings"] = 2048
    del raw["original_max_position_embeddings"]
    assert read_config(raw).decoder.original_max_position_embeddings == 2048


def test_config_without_rope_scaling_never_changes_regime(released: Released) -> None:
    raw = released("phi4-mini")
    raw |= {"rope_scaling": None, "max_position_embeddings": 4096}
    decoder = read_config(raw).decoder
    assert decoder.attention_factor == 1.0
    assert decoder.short_factor == decoder.long_factor == (1.0,) * 48
    assert decoder.original_max_position_embeddings == 4096


def test_keys_a_sub_config_leaves_out_have_the_format_s_defaults(released: Released) -> None:
    raw = released("tiny-hf")
    raw["vision_config"], raw["audio_config"] = {}, {}
    config = read_config(raw)
    assert config.vision == PHI4_MULTIMODAL.vision
    assert config.speech == replace(PHI4_MULTIMODAL.speech, bias_max_distance=1000)  # type: ignore[type-var]


def test_directory_gives_crop_limit_and_adapters(released: Released, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(released("tiny-hf")))
    (tmp_path / "preprocessor_config.json").write_text('{"dynamic_hd": 16}')
    for name, rank in (("house", 3), ("speech", 5)):
        (tmp_path / f"{name}-lora").mkdir()
        adapter = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": "model.*proj"}
        (tmp_path / f"{name}-lora" / "adapter_config.json").write_text(json.dumps(adapter))
    config = read_config(tmp_path)
    assert config.vision is not None and config.vision.max_crops == 16
    assert [(a.name, a.r, a.scale) for a in config.adapters] == [("speech", 5, 2.0), ("house", 3, 2.0)]


@pytest.mark.parametrize(
    ("name", "path", "value", "told"),
    [
        ("phi4-mini", "num_attention_heads", 25, ["num_attention_heads = 25", "divisor", "3072"]),
        ("phi4-mini", "num_key_value_heads", 7, ["num_key_value_heads = 7", "24"]),
        ("phi4-mini", "hidden_size", -3072, ["hidden_size = -3072", "from 1"]),
        ("phi4-mini", "hidden_size", "3072", ["hidden_size = '3072'", "whole number"]),
        ("phi4-mini", "num_hidden_layers", True, ["num_hidden_layers = True", "whole number"]),
        ("phi4-mini", "num_hidden_layers", 10**9, ["num_hidden_layers", "from 1 to 1024"]),
        ("phi4-mini", "vocab_size", 199999, ["bos_token_id = 199999", "below vocab_size = 199999"]),
        ("phi4-mini", "rms_norm_eps", float("nan"), ["rms_norm_eps = nan", "finite"]),
        ("phi4-mini", "rope_theta", float("inf"), ["rope_theta = inf", "finite"]),
        ("phi4-mini", "partial_rotary_factor", 0.01, ["partial_rotary_factor = 0.01", "even"]),
        ("phi4-mini", "rope_scaling.short_factor", [1.0] * 47, ["short_factor", "list of 47", "48 numbers"]),
        ("phi4-mini", "rope_scaling.long_factor", [0.0] * 48, ["long_factor[0] = 0.0"]),
        ("phi4-mini", "rope_scaling.long_factor", 3, ["long_factor = 3", "list of 48"]),
        ("phi4-mini", "rope_scaling.type", "yarn", ["rope_scaling.type = 'yarn'", "longrope"]),
        ("phi4-mini", "rope_scaling.factor", 8.0, ["rope_scaling.factor = 8.0", "32"]),
        ("phi4-mini", "rope_scaling.attention_factor", 1.0, ["attention_factor = 1.0", "1.19023"]),
        ("phi4-mini", "rope_scaling", [1], ["rope_scaling = [1]", "an object"]),
        ("phi4-mini", "original_max_position_embeddings", 1, ["original_max_position_embeddings = 1"]),
        ("phi4-mini", "sliding_window", 2048, ["sliding_window = 2048", "131072"]),
        ("phi4-mini", "hidden_act", "gelu", ["hidden_act = 'gelu'", "silu"]),
        ("phi4-mini", "attention_bias", True, ["attention_bias = True", "False"]),
        ("phi4-mini", "tie_word_embeddings", 1, ["tie_word_embeddings = 1", "true or false"]),
        ("phi4-mini", "head_dim", 96, ["head_dim = 96", "128"]),
        ("phi4-mini", "torch_dtype", "int4", ["dtype = 'int4'", "bfloat16"]),
        ("phi4-mini", "eos_token_id", [200020, -1], ["eos_token_id = -1"]),
        ("phi4-mini", "model_type", "llama", ["model_type = 'llama'", "phi4mm"]),
        ("phi4-multimodal", "speech_lora.r", 0, ["speech_lora.r = 0", "from 1"]),
        ("phi4-multimodal", "vision_lora.lora_alpha", "512", ["vision_lora.lora_alpha = '512'"]),
        ("phi4-multimodal", "audio_processor.config.attention_heads", 15, ["attention_heads = 15", "1024"]),
        (
            "phi4-multimodal",
            "audio_processor.config.causal",
            False,
            ["audio_processor.config.causal = False"],
        ),
        ("phi4-multimodal", "audio_processor.config", 7, ["audio_processor.config = 7", "an object"]),
        ("phi4-multimodal", "audio_processor.config.time_reduction", 4, ["time_reduction = 4", "8"]),
        ("phi4-multimodal", "embd_layer.image_embd_layer.crop_size", 450, ["crop_size = 450", "14 pixels"]),
        ("tiny-hf", "vision_config.num_attention_heads", 5, ["vision_config.num_attention_heads = 5", "32"]),
        ("tiny-hf", "vision_config.image_size", 336, ["vision_config.image_size = 336", "448"]),
        ("tiny-hf", "vision_config.feature_layer", 9, ["vision_config.feature_layer = 9"]),
        ("tiny-hf", "audio_config.ext_pw_out_channel", 16, ["audio_config.ext_pw_out_channel = 16", "32"]),
        ("tiny-hf", "audio_config.audio_token_id", "x", ["audio_config.audio_token_id = 'x'"]),
        ("tiny-hf", "rope_parameters.short_factor", [1.0] * 11 + [None], ["short_factor[11] = None"]),
    ],
)
def test_wrong_value_is_refused_with_field_value_and_what_is_valid(
    released: Released, name: str, path: str, value: Any, told: list[str]
) -> None:
    with pytest.raises(InvalidConfig) as refusal:
        read_config(set_path(released(name), path, value))
    for piece in told:
        assert piece in str(refusal.value)


@pytest.mark.parametrize("key", ["vocab_size", "num_hidden_layers", "max_position_embeddings"])
def test_missing_size_is_named(released: Released, key: str) -> None:
    raw = released("phi4-mini")
    del raw[key]
    with pytest.raises(InvalidConfig, match=f"{key} is missing"):
        read_config(raw)


def test_file_errors_name_the_file(released: Released, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"config\.json: cannot be read"):
        read_config(tmp_path)
    for text, told in (
        ("{", "not a valid JSON"),
        ("[1]", "must be a JSON object"),
        ('{"a": NaN}', "NaN"),
        ('{"a": 1, "a": 2}', "stands twice"),
        ('{"a":' * 5000, "not a valid JSON"),
        (json.dumps(set_path(released("phi4-mini"), "num_attention_heads", 7)), "num_attention_heads = 7"),
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InvalidConfig, match=told) as refusal:
            read_config(tmp_path)
        assert str(tmp_path / "config.json") in str(refusal.value)


def test_config_that_is_no_regular_file_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(InvalidConfig, match="not a regular file"):
        read_config(tmp_path)


def test_long_value_is_cut_in_the_message(released: Released) -> None:
    with pytest.raises(InvalidConfig) as refusal:
        read_config(set_path(released("phi4-mini"), "hidden_size", "9" * 10**6))
    assert len(str(refusal.value)) < 400
