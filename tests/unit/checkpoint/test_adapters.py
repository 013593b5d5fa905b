"""A user's PEFT adapter: read in every spelling, checked against the model, variants refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phi4.checkpoint import (
    LoadedAdapter,
    adapter_shapes,
    load_adapter,
    save_adapter,
    user_adapters,
    write_safetensors,
)
from phi4.configs import AdapterConfig, Phi4Config
from phi4.errors import CheckpointMismatch, InvalidArtifact, InvalidConfig, InvalidRequest

Q_AND_DOWN = ("self_attn.qkv_proj", "mlp.down_proj")


def adapter_of(tiny: Phi4Config, name: str = "mine", targets: tuple[str, ...] = Q_AND_DOWN) -> LoadedAdapter:
    config = AdapterConfig(name, 3, 6, 0.1, targets)
    rng = np.random.default_rng(3)
    shapes = adapter_shapes(tiny.decoder, config)
    return LoadedAdapter(config, {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()})


def peft_folder(path: Path, adapter: LoadedAdapter, prefix: str, segment: str = "", **changes: Any) -> Path:
    """A folder as PEFT writes it, with the given name prefix and adapter segment."""
    path.mkdir()
    stored = [
        (name.replace("decoder.", prefix, 1).replace(f".{adapter.config.name}.", f".{segment}"), array)
        for name, array in adapter.tensors.items()
    ]
    write_safetensors(path / "adapter_model.safetensors", stored)
    raw = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "lora_dropout": 0.1, "bias": "none"}
    raw |= {"target_modules": ["qkv_proj", "down_proj"], **changes}
    (path / "adapter_config.json").write_text(json.dumps(raw))
    return path


@pytest.mark.parametrize("prefix", ["base_model.model.model.", "base_model.model.", "model."])
@pytest.mark.parametrize("segment", ["", "default."])
def test_adapter_is_read_in_every_spelling(
    tmp_path: Path, tiny: Phi4Config, prefix: str, segment: str
) -> None:
    expected = adapter_of(tiny)
    found = load_adapter(peft_folder(tmp_path / "mine", expected, prefix, segment), tiny)
    assert found.config == expected.config
    assert set(found.tensors) == set(expected.tensors)
    assert all((found.tensors[name] == array).all() for name, array in expected.tensors.items())


def test_pattern_of_targets_is_resolved_by_the_tensors(tmp_path: Path, tiny: Phi4Config) -> None:
    folder = peft_folder(tmp_path / "a", adapter_of(tiny), "model.", target_modules=r".*\.(qkv|down)_proj")
    assert load_adapter(folder, tiny).config.target_modules == Q_AND_DOWN


def test_saved_adapter_is_read_back_under_another_name(tmp_path: Path, tiny: Phi4Config) -> None:
    adapter = adapter_of(tiny)
    save_adapter(tmp_path / "kept", adapter)
    back = load_adapter(tmp_path / "kept", tiny, name="other")
    assert (back.config.r, back.config.target_modules) == (3, Q_AND_DOWN)
    assert {name.replace(".other.", ".mine.") for name in back.tensors} == set(adapter.tensors)
    assert load_adapter(tmp_path / "kept", tiny).config.name == "kept"


@pytest.mark.parametrize("changes", [{"use_dora": True}, {"use_rslora": True}, {"bias": "all"}])
def test_variant_is_refused_with_its_file_and_key(
    tmp_path: Path, tiny: Phi4Config, changes: dict[str, Any]
) -> None:
    folder = peft_folder(tmp_path / "a", adapter_of(tiny), "model.", **changes)
    with pytest.raises(InvalidConfig, match=r"adapter_config\.json: " + next(iter(changes))):
        load_adapter(folder, tiny)


def test_adapter_of_another_model_is_told_in_one_error(tmp_path: Path, tiny: Phi4Config) -> None:
    adapter = adapter_of(tiny)
    tensors = dict(adapter.tensors)
    del tensors["decoder.layers.1.mlp.down_proj.lora_A.mine.weight"]
    tensors["decoder.layers.0.mlp.down_proj.lora_B.mine.weight"] = np.ones((65, 3), np.float32)
    tensors["decoder.layers.0.mlp.down_proj.lora_magnitude_vector"] = np.ones(64, np.float32)
    tensors["decoder.layers.2.mlp.down_proj.lora_B.mine.weight"] = np.ones((64, 3), np.float32)
    folder = peft_folder(tmp_path / "a", LoadedAdapter(adapter.config, tensors), "model.")
    with pytest.raises(CheckpointMismatch) as refusal:
        load_adapter(folder, tiny, name="mine")
    for piece in ("1 missing", "2 unexpected", "lora_magnitude_vector", "lora_B.mine.weight [65, 3]"):
        assert piece in str(refusal.value)


def test_listed_target_without_tensors_is_left_out_and_unlisted_one_unexpected(
    tmp_path: Path, tiny: Phi4Config
) -> None:
    only_q = adapter_of(tiny, targets=("self_attn.qkv_proj",))
    assert load_adapter(peft_folder(tmp_path / "a", only_q, "model."), tiny).config.target_modules == (
        "self_attn.qkv_proj",
    )
    folder = peft_folder(tmp_path / "b", adapter_of(tiny), "model.", target_modules=["qkv_proj"])
    with pytest.raises(CheckpointMismatch, match="4 unexpected"):
        load_adapter(folder, tiny)


def test_adapter_that_covers_nothing_of_the_decoder_is_refused(tmp_path: Path, tiny: Phi4Config) -> None:
    folder = peft_folder(tmp_path / "a", adapter_of(tiny), "vision_model.")
    with pytest.raises(InvalidArtifact, match="no LoRA matrices"):
        load_adapter(folder, tiny)


def test_pickle_and_missing_adapter_files_are_refused(tmp_path: Path, tiny: Phi4Config) -> None:
    folder = peft_folder(tmp_path / "a", adapter_of(tiny), "model.")
    weights = folder / "adapter_model.safetensors"
    weights.rename(folder / "adapter_model.bin")
    with pytest.raises(InvalidArtifact, match="pickle checkpoint"):
        load_adapter(folder, tiny)
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(InvalidArtifact, match="an adapter folder holds"):
        load_adapter(folder, tiny)
    with pytest.raises(InvalidArtifact, match="cannot be read"):
        load_adapter(tmp_path / "nowhere", tiny)


def test_name_of_a_modality_s_adapter_is_taken(tmp_path: Path, tiny: Phi4Config) -> None:
    folder = peft_folder(tmp_path / "speech", adapter_of(tiny), "model.")
    with pytest.raises(InvalidRequest, match="'speech'"):
        load_adapter(folder, tiny)
    assert load_adapter(folder, tiny, name="mine").config.name == "mine"


def test_several_adapters_need_names_of_their_own() -> None:
    one, other = (LoadedAdapter(AdapterConfig(name, 2, 4), {}) for name in ("mine", "other"))
    assert user_adapters(None) == () and user_adapters(one) == (one,)
    assert user_adapters([one, other]) == (one, other)
    with pytest.raises(InvalidRequest, match=r"'mine', 'mine'.*own name"):
        user_adapters((one, one))
