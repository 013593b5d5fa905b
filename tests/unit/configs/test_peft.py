"""PEFT's adapter config: what can be applied exactly is read, everything else refused by key."""

from __future__ import annotations

from typing import Any

import pytest

from phi4.configs import DECODER_TARGETS, AdapterConfig, read_peft_config, write_peft_config
from phi4.errors import InvalidConfig

PLAIN: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.1,
    "bias": "none",
    "target_modules": ["o_proj", "qkv_proj"],
}


def test_plain_lora_is_read() -> None:
    adapter = read_peft_config(PLAIN, "mine")
    assert adapter == AdapterConfig("mine", 8, 16, 0.1, ("self_attn.qkv_proj", "self_attn.o_proj"))


def test_pattern_of_targets_stands_for_all_until_the_tensors_speak() -> None:
    assert read_peft_config(PLAIN | {"target_modules": "(a+)+$"}, "x").target_modules == DECODER_TARGETS


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "IA3"),
        ("use_dora", True),
        ("use_rslora", True),
        ("alora_invocation_tokens", [200021]),
        ("bias", "all"),
        ("lora_bias", True),
        ("modules_to_save", ["embed_tokens"]),
        ("rank_pattern", {"qkv_proj": 4}),
        ("alpha_pattern", {"qkv_proj": 4}),
        ("layers_to_transform", [0]),
        ("fan_in_fan_out", True),
        ("init_lora_weights", "pissa"),
        ("target_modules", ["lm_head"]),
        ("target_modules", []),
        ("target_modules", [7]),
        ("r", 0),
        ("lora_alpha", None),
        ("lora_dropout", 2),
    ],
)
def test_variant_that_would_differ_is_refused_by_key(key: str, value: Any) -> None:
    with pytest.raises(InvalidConfig, match=r"must be") as refusal:
        read_peft_config(PLAIN | {key: value}, "mine")
    assert key.split("_")[-1] in str(refusal.value)


@pytest.mark.parametrize("key", ["r", "lora_alpha"])
def test_missing_number_is_refused(key: str) -> None:
    with pytest.raises(InvalidConfig, match=f"{key} = None"):
        read_peft_config({k: v for k, v in PLAIN.items() if k != key}, "mine")


def test_written_config_is_read_back() -> None:
    adapter = AdapterConfig("vision", 4, 8.0, 0.25)
    assert read_peft_config(write_peft_config(adapter), "vision") == adapter
