"""Load, save in another layout, load: the same tensors bit for bit, the same config."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phi4.checkpoint import adapter_shapes, open_checkpoint, read_header, save_checkpoint
from phi4.configs import LAYOUTS, AdapterConfig, Layout, Phi4Config
from phi4.errors import CheckpointMismatch, InvalidRequest

Saved = Callable[..., Path]


def same(one: Any, other: Any) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


@pytest.mark.parametrize("first", ["original", "hf"])
@pytest.mark.parametrize("second", ["original", "hf"])
@pytest.mark.parametrize("shard_bytes", [10_000, 100_000, 1 << 30])
def test_two_layouts_there_and_back_are_bit_identical(
    saved: Saved,
    tiny: Phi4Config,
    tensors: Any,
    tmp_path: Path,
    first: Layout,
    second: Layout,
    shard_bytes: int,
) -> None:
    loaded = open_checkpoint(saved(first, shard_bytes))
    assert loaded.config == tiny.with_layout(first)
    save_checkpoint(tmp_path / "other", loaded.config, loaded.tensors(unused=True), second, shard_bytes)
    back = open_checkpoint(tmp_path / "other")
    assert back.config == tiny.with_layout(second)
    assert set(back.entries) == set(tensors)
    assert all(same(back.read(name), array) for name, array in tensors.items())


def test_further_adapters_get_their_own_folder_in_the_hf_layout(
    tiny: Phi4Config, tensors: Any, tmp_path: Path
) -> None:
    config = replace(tiny, adapters=(*tiny.adapters, AdapterConfig("house", 2, 4)))
    shapes = adapter_shapes(tiny.decoder, config.adapters[-1])
    more = {name: np.full(shape, 0.25, np.float32) for name, shape in shapes.items()}
    layouts: tuple[Layout, ...] = ("original", "hf")
    for layout in layouts:
        save_checkpoint(tmp_path / layout, config, tensors | more, layout)
        loaded = open_checkpoint(tmp_path / layout)
        assert loaded.config == config.with_layout(layout)
        assert all(same(loaded.read(name), array) for name, array in more.items())


def test_mini_layout_keeps_the_decoder_and_nothing_else(saved: Saved, tiny: Phi4Config, tensors: Any) -> None:
    loaded = open_checkpoint(saved("mini", 50_000))
    assert loaded.config == tiny.with_layout("mini")
    assert all(same(array, tensors[name]) for name, array in loaded.tensors())
    assert (
        set(loaded.entries)
        == set(loaded.names())
        == {n for n in tensors if ".lora_" not in n and "decoder" in n}
    )


def test_saving_twice_gives_the_same_files(saved: Saved) -> None:
    one, other = saved("hf", 100_000, "one"), saved("hf", 100_000, "other")
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    assert all((one / file).read_bytes() == (other / file).read_bytes() for file in files)


def test_shards_stay_under_their_limit_and_the_index_tells_the_whole(saved: Saved, tensors: Any) -> None:
    folder = saved("original", 60_000)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    assert shards == sorted(set(index["weight_map"].values())) and len(shards) > 3
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in tensors.values())
    for shard in shards:
        sizes = [entry.nbytes for entry in read_header(folder / shard).values()]
        assert len(sizes) == 1 or sum(sizes) <= 60_000


def test_a_later_save_leaves_nothing_of_an_earlier_one(saved: Saved, tensors: Any) -> None:
    saved("original", 60_000)
    folder = saved("original")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    saved("original", 60_000)
    assert not (folder / "model.safetensors").exists()
    assert set(open_checkpoint(folder).entries) == set(tensors)


def test_wrong_tensors_are_refused_together_and_change_nothing(
    saved: Saved, tiny: Phi4Config, tensors: Any
) -> None:
    folder = saved("hf")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    wrong = dict(tensors)
    del wrong["vision.glb_GN"]
    wrong |= {"decoder.norm.weight": np.ones(3, np.float32), "decoder.extra": np.ones(1, np.float32)}
    with pytest.raises(CheckpointMismatch) as refusal:
        save_checkpoint(folder, tiny, wrong, "hf", 10_000)
    for piece in ("1 missing (vision.glb_GN)", "1 unexpected (decoder.extra)", "decoder.norm.weight [3]"):
        assert piece in str(refusal.value)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_failing_source_leaves_no_half_written_file(tiny: Phi4Config, tensors: Any, tmp_path: Path) -> None:
    def source() -> Any:
        yield from list(tensors.items())[:50]
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="went away"):
        save_checkpoint(tmp_path / "m", tiny, source(), "original", 10_000)
    assert list((tmp_path / "m").iterdir()) == []


def test_impossible_shard_size_is_refused(tiny: Phi4Config, tensors: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="max_shard_bytes = 0"):
        save_checkpoint(tmp_path / "m", tiny, tensors, max_shard_bytes=0)


def test_untied_output_matrix_is_stored_and_required(tiny: Phi4Config, tensors: Any, tmp_path: Path) -> None:
    untied = replace(tiny, decoder=replace(tiny.decoder, tie_word_embeddings=False))
    with pytest.raises(CheckpointMismatch, match=r"1 missing \(decoder\.lm_head\.weight\)"):
        save_checkpoint(tmp_path / "m", untied, tensors)
    head = np.full((256, 64), 0.5, np.float32)
    save_checkpoint(tmp_path / "m", untied, tensors | {"decoder.lm_head.weight": head})
    assert "lm_head.weight" in read_header(tmp_path / "m" / "model.safetensors")
    assert same(open_checkpoint(tmp_path / "m").read("decoder.lm_head.weight"), head)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_output_matrix_stored_beside_a_tied_one_is_tolerated_and_not_loaded(
    tiny: Phi4Config, tensors: Any, tmp_path: Path, layout: Layout
) -> None:
    extra = {"decoder.lm_head.weight": tensors["decoder.embed_tokens.weight"]}
    save_checkpoint(tmp_path / "m", tiny, tensors | extra, layout)
    loaded = open_checkpoint(tmp_path / "m")
    assert "decoder.lm_head.weight" in loaded.entries
    assert "decoder.lm_head.weight" not in dict(loaded.tensors())
