"""Opening a model's directory: what is refused, what may be absent, what is read off the tensors."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phi4.checkpoint import (
    expected_shapes,
    open_checkpoint,
    optional_shapes,
    read_header,
    save_checkpoint,
    write_safetensors,
)
from phi4.checkpoint.opening import required_files
from phi4.checkpoint.shards import plan_shards
from phi4.configs import Phi4Config, read_config
from phi4.errors import CheckpointMismatch, InvalidArtifact, InvalidConfig, InvalidRequest

Saved = Callable[..., Path]
INDEX = "model.safetensors.index.json"


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


def shard_of(folder: Path, stored: str) -> Path:
    return folder / json.loads((folder / INDEX).read_text())["weight_map"][stored]


def test_truncated_shard_is_refused(saved: Saved) -> None:
    folder = saved("original", 100_000)
    shard = shard_of(folder, "model.norm.weight")
    os.truncate(shard, shard.stat().st_size - 1)
    with pytest.raises(InvalidArtifact, match="truncated") as refusal:
        open_checkpoint(folder)
    assert shard.name in str(refusal.value)


def test_flipped_byte_in_a_shard_s_header_is_refused(saved: Saved) -> None:
    folder = saved("original")
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[content.index(b'"shape":[')] ^= 0x40
    file.write_bytes(content)
    with pytest.raises(InvalidArtifact, match=r"model\.safetensors"):
        open_checkpoint(folder)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_empty_file_is_refused(saved: Saved, file: str) -> None:
    folder = saved("original")
    (folder / file).write_bytes(b"")
    with pytest.raises(InvalidArtifact, match=file):
        open_checkpoint(folder)


def test_empty_adapter_file_is_refused_in_the_hf_layout_and_never_opened_in_the_original(
    saved: Saved,
) -> None:
    hf, original = saved("hf", name="hf"), saved("original", name="original")
    (hf / "vision-lora" / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(InvalidArtifact, match="vision-lora"):
        open_checkpoint(hf)
    (original / "vision-lora").mkdir()
    (original / "vision-lora" / "adapter_model.safetensors").write_bytes(b"")
    assert len(open_checkpoint(original).config.adapters) == 2


@pytest.mark.parametrize(
    "name", ["../evil.safetensors", "/etc/passwd", "a/b.safetensors", "", "x\0.safetensors", ".."]
)
def test_index_naming_a_file_outside_the_folder_is_refused(saved: Saved, name: str) -> None:
    folder = saved("original", 100_000)
    write_safetensors(folder.parent / "evil.safetensors", [("model.norm.weight", np.ones(64, np.float32))])
    edit_json(folder / INDEX, lambda raw: raw["weight_map"].__setitem__("model.norm.weight", name))
    with pytest.raises(InvalidArtifact, match=r"same folder|only \.safetensors"):
        open_checkpoint(folder)


def test_link_out_of_the_folder_is_refused(saved: Saved) -> None:
    folder = saved("original")
    outside = folder.parent / "outside.safetensors"
    (folder / "model.safetensors").rename(outside)
    (folder / "model.safetensors").symlink_to(outside)
    with pytest.raises(InvalidArtifact, match="leads out of the model's folder"):
        open_checkpoint(folder)


def test_links_of_the_hub_s_cache_are_followed(saved: Saved, tmp_path: Path) -> None:
    folder = saved("hf", 200_000)
    repository = tmp_path / "models--a--b"
    snapshot = repository / "snapshots" / ("0" * 40)
    (repository / "blobs").mkdir(parents=True)
    for number, path in enumerate(sorted(p for p in folder.rglob("*") if p.is_file())):
        blob = path.rename(repository / "blobs" / str(number))
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    assert len(open_checkpoint(snapshot).config.adapters) == 2


@pytest.mark.parametrize("value", [7, None, ["model.safetensors"]])
def test_index_that_is_no_map_of_files_is_refused(saved: Saved, value: Any) -> None:
    folder = saved("original", 100_000)
    edit_json(folder / INDEX, lambda raw: raw["weight_map"].__setitem__("model.norm.weight", value))
    with pytest.raises(InvalidArtifact, match="must be a file name"):
        open_checkpoint(folder)
    (folder / INDEX).write_text('{"weight_map": []}')
    with pytest.raises(InvalidArtifact, match="weight_map must be an object"):
        open_checkpoint(folder)


def test_missing_shard_is_named_with_what_it_holds(saved: Saved) -> None:
    folder = saved("original", 100_000)
    shard = shard_of(folder, "model.norm.weight")
    shard.unlink()
    with pytest.raises(InvalidArtifact, match="this shard is missing") as refusal:
        open_checkpoint(folder)
    assert shard.name in str(refusal.value)


def test_text_needs_no_shard_of_the_encoders(saved: Saved, tensors: Any) -> None:
    folder = saved("original", 50_000)
    config = read_config(folder)
    wanted = required_files(config, plan_shards(folder).files, ("text",))
    others = [path for path in folder.glob("*.safetensors") if path.name not in wanted]
    assert others
    for path in others:
        path.unlink()
    checkpoint = open_checkpoint(folder, ("text",))
    assert checkpoint.absent_files == tuple(sorted(path.name for path in others))
    assert {name for name, _ in checkpoint.tensors(("text",))} == set(checkpoint.names(("text",)))
    with pytest.raises(InvalidArtifact, match="this shard is missing"):
        open_checkpoint(folder, ("speech",))


def test_tensor_the_index_promises_but_the_shard_lacks_is_refused(saved: Saved) -> None:
    folder = saved("original", 100_000)
    other = shard_of(folder, "model.norm.weight").name
    edit_json(folder / INDEX, lambda raw: raw["weight_map"].__setitem__("model.ghost.weight", other))
    with pytest.raises(InvalidArtifact, match=r"puts tensor model\.ghost\.weight here"):
        open_checkpoint(folder)


def test_tensor_stored_in_two_shards_is_refused(saved: Saved) -> None:
    folder = saved("original", 100_000)
    write_safetensors(folder / "more.safetensors", [("model.norm.weight", np.ones(64, np.float32))])
    edit_json(folder / INDEX, lambda raw: raw["weight_map"].__setitem__("x", "more.safetensors"))
    with pytest.raises(InvalidArtifact, match="puts tensor x here"):
        open_checkpoint(folder)
    edit_json(folder / INDEX, lambda raw: raw["weight_map"].pop("x"))
    write_safetensors(
        folder / "more.safetensors", [(n, np.ones(64, np.float32)) for n in ("x", "model.norm.weight")]
    )
    edit_json(folder / INDEX, lambda raw: raw["weight_map"].__setitem__("x", "more.safetensors"))
    with pytest.raises(InvalidArtifact, match="stored twice"):
        open_checkpoint(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt", "weights.ckpt"])
def test_directory_with_pickles_only_is_refused(saved: Saved, name: str) -> None:
    folder = saved("original")
    (folder / "model.safetensors").rename(folder / name)
    for path in (folder, folder / name):
        with pytest.raises(InvalidArtifact, match=r"pickle checkpoint.*always refused"):
            open_checkpoint(path)


def test_index_naming_a_pickle_is_refused(saved: Saved) -> None:
    folder = saved("original", 100_000)
    edit_json(folder / INDEX, lambda raw: raw["weight_map"].__setitem__("x", "pytorch_model.bin"))
    with pytest.raises(InvalidArtifact, match="pickle checkpoint"):
        open_checkpoint(folder)


def test_folder_without_weights_or_index_says_so(saved: Saved) -> None:
    folder = saved("original", 100_000)
    (folder / INDEX).unlink()
    with pytest.raises(InvalidArtifact, match=r"has model-00001.* but no model\.safetensors\.index\.json"):
        open_checkpoint(folder)
    for shard in folder.glob("*.safetensors"):
        shard.unlink()
    with pytest.raises(InvalidArtifact, match="holds no weights"):
        open_checkpoint(folder)


def test_missing_unexpected_and_misshapen_come_in_one_error(
    saved: Saved, tensors: Any, tiny: Phi4Config
) -> None:
    folder = saved("original")
    header = read_header(folder / "model.safetensors")
    checkpoint = open_checkpoint(folder)
    stored = {entry.stored_name: checkpoint.read(name) for name, entry in checkpoint.entries.items()}
    assert set(stored) == set(header)
    del stored["model.embed_tokens_extend.image_embed.sub_GN"]
    stored |= {"model.norm.weight": np.ones(65, np.float32), "optimizer.step": np.ones(1, np.float32)}
    stored["model.layers.0.mlp.down_proj.lora_A.foo.weight"] = np.ones(1, np.float32)
    write_safetensors(folder / "model.safetensors", stored.items())
    with pytest.raises(CheckpointMismatch) as refusal:
        open_checkpoint(folder)
    for piece in (
        "1 missing (vision.sub_GN)",
        "2 unexpected (decoder.layers.0.mlp.down_proj.lora_A.foo.weight, optimizer.step)",
        "decoder.norm.weight [65] (the config says [64])",
    ):
        assert piece in str(refusal.value)
    differences = open_checkpoint(folder, check=False).differences()
    assert differences.misshapen[0].expected == (64,)
    # The vision tower is not asked for here, so its gap does not count; strangers always do.
    assert open_checkpoint(folder, check=False).differences(("text",)).missing == ()


def test_rank_other_than_the_config_s_is_misshapen(saved: Saved) -> None:
    folder = saved("hf")
    edit_json(folder / "speech-lora" / "adapter_config.json", lambda raw: raw.update(r=6))
    with pytest.raises(CheckpointMismatch, match="16 misshapen"):
        open_checkpoint(folder)


def test_modality_the_model_lacks_is_refused(saved: Saved) -> None:
    with pytest.raises(InvalidRequest, match="'vision' is not in this model"):
        open_checkpoint(saved("mini"), ("vision",))


def test_reading_a_name_nobody_stored_is_one_of_our_errors(saved: Saved) -> None:
    with pytest.raises(CheckpointMismatch, match=r"no tensor decoder\.nothing"):
        open_checkpoint(saved("mini")).read("decoder.nothing")


def test_bytes_of_a_modality_are_those_of_its_tensors(saved: Saved, tensors: Any) -> None:
    checkpoint = open_checkpoint(saved("hf"))
    assert checkpoint.nbytes(("text",)) == sum(tensors[name].nbytes for name in checkpoint.names(("text",)))


@pytest.fixture
def silent(tmp_path: Path, tiny: Phi4Config) -> Path:
    """A tower 64 wide with patches of 7 pixels, original layout, and a config silent about it."""
    assert tiny.vision is not None
    tower = replace(tiny.vision, hidden_size=64, num_attention_heads=16, crop_size=112, patch_size=7)
    config = replace(tiny, layout="original", vision=tower)
    shapes = expected_shapes(config) | optional_shapes(config)
    made = ((name, np.ones(shape, np.float32)) for name, shape in shapes.items())
    save_checkpoint(tmp_path / "silent", config, made)
    edit_json(tmp_path / "silent" / "config.json", lambda raw: raw.pop("vision_config"))
    return tmp_path / "silent"


def test_tower_sizes_come_from_the_tensors_when_the_config_is_silent(silent: Path, tiny: Phi4Config) -> None:
    assert read_config(silent).vision_from_tensors
    checkpoint = open_checkpoint(silent)
    assert tiny.vision is not None and not checkpoint.config.vision_from_tensors
    expected = replace(tiny.vision, hidden_size=64, num_attention_heads=16, crop_size=112, patch_size=7)
    assert checkpoint.config.vision == expected
    assert not checkpoint.differences()


def test_inferred_sizes_are_written_down_when_saved_again(silent: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(silent)
    save_checkpoint(tmp_path / "again", checkpoint.config, checkpoint.tensors(unused=True))
    assert read_config(tmp_path / "again").vision == checkpoint.config.vision


def test_crop_size_the_tensors_contradict_is_refused(silent: Path) -> None:
    edit_json(silent / "config.json", lambda raw: raw["embd_layer"]["image_embd_layer"].update(crop_size=448))
    with pytest.raises(InvalidConfig, match="crop_size = 448: must be 112"):
        open_checkpoint(silent)


def test_tower_whose_heads_cannot_be_sixteen_must_say_its_own(silent: Path, tiny: Phi4Config) -> None:
    checkpoint = open_checkpoint(silent)
    assert checkpoint.config.vision is not None
    narrow = replace(checkpoint.config.vision, hidden_size=40, num_attention_heads=5)
    config = replace(checkpoint.config, vision=narrow, extra={})
    save_checkpoint(silent, config, ((n, np.ones(s, np.float32)) for n, s in expected_shapes(config).items()))
    assert open_checkpoint(silent).config.vision == narrow
    edit_json(silent / "config.json", lambda raw: raw.pop("vision_config"))
    with pytest.raises(InvalidConfig, match=r"num_attention_heads is missing.*vision_config"):
        open_checkpoint(silent)
