"""Names and shapes against the inventory of the released checkpoints, in both directions."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from phi4.checkpoint import adapter_of, expected_shapes, optional_shapes, part_of, to_canonical, to_stored
from phi4.checkpoint.inventory import Shapes
from phi4.checkpoint.keymap import adapter_to_canonical, adapter_to_stored
from phi4.configs import PHI4_MINI, PHI4_MULTIMODAL, Layout
from phi4.errors import InvalidRequest


@pytest.fixture(scope="module")
def inventory(repository: Path) -> dict[str, Any]:
    return json.loads((repository / "tests/data/checkpoint/released_tensors.json").read_text())


@pytest.fixture(scope="module")
def multimodal() -> Shapes:
    """All tensors the released multimodal checkpoint stores, by our names."""
    shapes = expected_shapes(PHI4_MULTIMODAL) | optional_shapes(PHI4_MULTIMODAL)
    del shapes["decoder.lm_head.weight"]
    return shapes


def unrolled(rows: list[list[Any]]) -> Shapes:
    return {name.replace("{i}", str(i)): tuple(shape) for name, shape, count in rows for i in range(count)}


def test_mini_names_and_shapes_are_the_released_ones(inventory: dict[str, Any]) -> None:
    ours = expected_shapes(PHI4_MINI)
    assert {to_stored(name, "mini"): shape for name, shape in ours.items()} == unrolled(inventory["mini"])
    assert len(ours) == 194
    assert sum(math.prod(shape) for shape in ours.values()) == 3_836_021_760


def test_original_names_and_shapes_are_the_released_ones(
    inventory: dict[str, Any], multimodal: Shapes
) -> None:
    stored = {to_stored(name, "original"): shape for name, shape in multimodal.items()}
    assert stored == unrolled(inventory["original"])
    assert len(stored) == 2047
    assert sum(math.prod(shape) for shape in stored.values()) == 5_574_460_384


def test_hf_native_names_and_shapes_are_the_released_ones(
    inventory: dict[str, Any], multimodal: Shapes
) -> None:
    base = {name: shape for name, shape in multimodal.items() if adapter_of(name) is None}
    stored = {to_stored(name, "hf"): shape for name, shape in base.items()}
    assert stored == unrolled(inventory["hf"])
    assert len(stored) == 1535


def test_adapter_folders_map_both_prefixes_onto_our_names(
    inventory: dict[str, Any], multimodal: Shapes
) -> None:
    for adapter in ("vision", "speech"):
        rows = [row for row in inventory["adapter_folders"] if row[0] == adapter]
        ours = {name: shape for name, shape in multimodal.items() if adapter_of(name) == adapter}
        for column in (1, 2):
            stored = unrolled([[row[column], row[3], row[4]] for row in rows])
            assert {adapter_to_canonical(name, adapter): shape for name, shape in stored.items()} == ours
        assert {adapter_to_stored(name): shape for name, shape in ours.items()} == stored


@pytest.mark.parametrize("layout", ["original", "hf"])
def test_every_name_comes_back_from_its_stored_form(layout: Layout, multimodal: Shapes) -> None:
    for name in multimodal:
        stored = to_stored(name, layout)
        assert stored is not None and to_canonical(stored, layout) == name


def test_names_of_no_table_have_no_place() -> None:
    assert to_canonical("transformer.h.0.weight", "original") is None
    assert (
        to_canonical("model.embed_tokens_extend.image_embed.x", "mini")
        == "decoder.embed_tokens_extend.image_embed.x"
    )
    assert to_stored("vision.glb_GN", "mini") is None
    assert adapter_to_canonical("model.layers.0.self_attn.k_proj.lora_A.weight", "x") is None
    assert adapter_to_canonical("model.layers.0.mlp.down_proj.lora_A.weight.evil", "x") is None


def test_adapter_segment_in_a_folder_s_name_is_optional() -> None:
    for segment in ("", "default.", "speech."):
        stored = f"base_model.model.model.layers.11.mlp.down_proj.lora_B.{segment}weight"
        assert adapter_to_canonical(stored, "a-b") == "decoder.layers.11.mlp.down_proj.lora_B.a-b.weight"


def test_base_matrices_of_the_original_layout_may_lack_their_wrapper() -> None:
    plain, wrapped = "model.layers.3.mlp.down_proj.weight", "model.layers.3.mlp.down_proj.base_layer.weight"
    assert to_canonical(plain, "original") == to_canonical(wrapped, "original")


def test_part_of_a_name() -> None:
    assert part_of("decoder.norm.weight") == "text"
    assert part_of("decoder.layers.0.mlp.down_proj.lora_A.vision.weight") == "adapter:vision"
    assert part_of("vision.glb_GN") == "vision"
    assert part_of("speech.encoder.embed.out.bias") == "speech"


def test_text_alone_asks_for_no_encoder_and_no_adapter() -> None:
    assert set(expected_shapes(PHI4_MULTIMODAL, ("text",))) == set(expected_shapes(PHI4_MINI))
    vision = {part_of(name) for name in expected_shapes(PHI4_MULTIMODAL, ("vision",))}
    assert vision == {"text", "vision", "adapter:vision"}
    both = {part_of(name) for name in expected_shapes(PHI4_MULTIMODAL, ("text",), ("speech", "vision"))}
    assert both == {"text", "adapter:vision", "adapter:speech"}


def test_parts_and_adapters_the_model_lacks_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="'vision' is not in this model"):
        expected_shapes(PHI4_MINI, ("vision",))
    with pytest.raises(InvalidRequest, match="no adapter named 'mine'"):
        expected_shapes(PHI4_MULTIMODAL, ("text",), ("mine",))
