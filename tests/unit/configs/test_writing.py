"""Configs written back: exactly the file they came from, and the same model in any other layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from phi4.configs import LAYOUTS, NANO, PHI4_MULTIMODAL, Layout, read_config, tiny_multimodal, write_config

Released = Callable[[str], dict[str, Any]]


@pytest.mark.parametrize("name", ["phi4-mini", "phi4-multimodal", "tiny-hf"])
def test_reading_and_writing_returns_the_file_byte_for_byte(released: Released, name: str) -> None:
    raw = released(name)
    raw["a_field_nobody_knows"] = {"kept": [1, 2.0, None]}
    assert json.dumps(write_config(read_config(raw))) == json.dumps(raw)


@pytest.mark.parametrize("spelled", [None, 5, [5], [5, 6]])
def test_end_tokens_keep_their_spelling(released: Released, spelled: Any) -> None:
    raw = released("phi4-mini") | {"eos_token_id": spelled}
    assert write_config(read_config(raw))["eos_token_id"] == spelled


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "config", [PHI4_MULTIMODAL, NANO, tiny_multimodal(16, 64)], ids=["mm", "nano", "tiny"]
)
def test_model_survives_a_layout_written_from_scratch(config: Any, layout: Layout) -> None:
    back = read_config(json.loads(json.dumps(write_config(config, layout))))
    adapters = config.adapters if layout == "original" else ()
    assert back == replace(config.with_layout(layout), adapters=adapters)


@pytest.mark.parametrize("name", ["phi4-multimodal", "tiny-hf"])
def test_unknown_fields_of_common_meaning_travel_to_another_layout(released: Released, name: str) -> None:
    raw = released(name) | {"initializer_range": 0.5, "note": "kept"}
    other: Layout = "hf" if name == "phi4-multimodal" else "original"
    written = write_config(read_config(raw), other)
    assert (written["initializer_range"], written["note"]) == (0.5, "kept")
    assert "auto_map" not in written
    home = write_config(read_config(written), read_config(raw).layout)
    assert (home["initializer_range"], home["note"]) == (0.5, "kept")


def test_placeholder_hints_survive_a_way_through_the_original_layout(released: Released) -> None:
    through = write_config(read_config(released("tiny-hf")), "original")
    home = write_config(read_config(through), "hf")
    assert home["vision_config"]["image_token_id"] == 1
    assert home["audio_config"]["audio_token_id"] == 2


def test_only_a_changed_field_changes(released: Released) -> None:
    config = read_config(released("phi4-multimodal"))
    changed = replace(
        config,
        decoder=replace(config.decoder, num_hidden_layers=2, long_factor=(2.0,) * 48),
        adapters=config.adapters[:1],
        eos_token_ids=(1, 2),
        dtype="float32",
    )
    expected = released("phi4-multimodal")
    expected |= {"num_hidden_layers": 2, "eos_token_id": [1, 2], "torch_dtype": "float32"}
    expected["rope_scaling"]["long_factor"] = [2.0] * 48
    del expected["speech_lora"]
    assert write_config(changed) == expected


def test_rope_spelling_of_the_file_is_kept_when_rope_changes(released: Released) -> None:
    config = read_config(released("tiny-hf"))
    changed = replace(config, decoder=replace(config.decoder, original_max_position_embeddings=1024))
    written = write_config(changed)
    assert "rope_scaling" not in written
    assert written["rope_parameters"]["original_max_position_embeddings"] == 1024
    assert read_config(written) == changed


def test_written_config_is_independent_of_the_read_one(released: Released) -> None:
    config = read_config(released("phi4-multimodal"))
    write_config(config)["embd_layer"]["image_embd_layer"]["crop_size"] = 1
    assert write_config(config) == released("phi4-multimodal")


def test_mini_layout_keeps_no_encoder_keys(released: Released) -> None:
    for name in ("phi4-multimodal", "tiny-hf"):
        written = write_config(read_config(released(name)), "mini")
        leftovers = {"vision_config", "audio_config", "embd_layer", "audio_processor", "vision_lora"}
        assert not leftovers & set(written)
        assert written["model_type"] == "phi3"
