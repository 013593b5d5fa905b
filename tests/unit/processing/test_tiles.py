"""Tiling: every row of the published table, golden pixels, masks, and the limits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phi4.configs import PHI4_MULTIMODAL, VisionConfig
from phi4.errors import InvalidMedia, InvalidRequest
from phi4.processing.tiles import plan_tiles, resize_bicubic, tile_image
from phi4.testing.media import ramp_picture

assert PHI4_MULTIMODAL.vision is not None
OFFICIAL: VisionConfig = PHI4_MULTIMODAL.vision
SMALL = replace(OFFICIAL, crop_size=112, max_crops=6)

# (width, height), grid, resized, pad, pooled rows and columns, tokens
TABLE = [
    ((448, 448), (1, 1), (448, 448), (0, 0), (16, 16), 545),
    ((224, 224), (1, 1), (448, 448), (0, 0), (16, 16), 545),
    ((100, 100), (1, 1), (448, 448), (0, 0), (16, 16), 545),
    ((28, 448), (1, 1), (28, 448), (420, 0), (16, 1), 305),
    ((640, 480), (2, 2), (896, 672), (0, 224), (24, 32), 1065),
    ((1024, 768), (3, 2), (1194, 896), (150, 0), (32, 43), 1681),
    ((1000, 600), (3, 2), (1344, 806), (0, 90), (29, 48), 1694),
    ((1344, 896), (3, 2), (1344, 896), (0, 0), (32, 48), 1841),
    ((896, 1344), (2, 3), (896, 1344), (0, 0), (48, 32), 1857),
    ((1344, 1344), (3, 3), (1344, 1344), (0, 0), (48, 48), 2625),
    ((1920, 1080), (5, 3), (2240, 1260), (0, 84), (45, 80), 3918),
    ((3000, 2000), (7, 5), (3136, 2090), (0, 150), (75, 112), 8748),
    ((2688, 2688), (6, 6), (2688, 2688), (0, 0), (96, 96), 9585),
    ((4000, 3000), (4, 3), (1792, 1344), (0, 0), (48, 64), 3393),
    ((448, 16128), (1, 36), (448, 16128), (0, 0), (576, 16), 10065),
    ((100, 3000), (1, 7), (104, 3136), (344, 0), (112, 4), 833),
    ((8448, 8448), (6, 6), (2688, 2688), (0, 0), (96, 96), 9585),
]


@pytest.mark.parametrize(("size", "grid", "resized", "pad", "pooled", "tokens"), TABLE)
def test_plan_matches_published_table(size, grid, resized, pad, pooled, tokens):
    plan = plan_tiles(*size, OFFICIAL)
    assert (plan.grid, plan.resized_px, plan.pad_px) == (grid, resized, pad)
    assert tuple((valid + 1) // 2 for valid in reversed(plan.valid_patches)) == pooled
    assert plan.num_tokens == tokens
    assert plan.num_crops == 1 + grid[0] * grid[1]


@pytest.mark.parametrize(
    ("size", "grid", "tokens"), [((5000, 4000), (5, 4), 5457), ((10000, 1000), (10, 1), 2849)]
)
def test_ratio_search_matches_computed_sizes(size, grid, tokens):
    plan = plan_tiles(*size, OFFICIAL)
    assert (plan.grid, plan.num_tokens) == (grid, tokens)


def test_larger_picture_may_take_fewer_tokens():
    assert plan_tiles(4000, 3000, OFFICIAL).num_tokens < plan_tiles(3000, 2000, OFFICIAL).num_tokens


def test_equal_ratio_takes_bigger_grid_only_with_pixels_to_fill_it():
    four = replace(OFFICIAL, crop_size=112, max_crops=4)
    # 3 x 3 crops are too many; 1 x 1 and 2 x 2 have the same ratio, and the picture fills half of 2 x 2.
    assert plan_tiles(300, 300, four).grid == (2, 2)
    # 450 x 90: five crops are too many, and 4 x 1 is the nearest ratio without any tie.
    assert plan_tiles(450, 90, four).grid == (4, 1)


@pytest.mark.parametrize("name", ["640x480", "1000x600", "300x900", "448x448"])
def test_pixels_match_golden_values(repository: Path, name: str):
    golden = json.loads((repository / "tests/data/golden/golden_pixels.json").read_text())["cases"][name]
    width, height = map(int, name.split("x"))
    tiles = tile_image(ramp_picture(width, height), OFFICIAL)
    assert list(tiles.pixels.shape) == golden["original"]["shape"]
    assert list(tiles.size_px) == golden["image_size"]
    assert tiles.num_tokens == golden["num_img_tokens"]
    for pixels, crop in zip(tiles.pixels, golden["original"]["crops"], strict=True):
        assert pixels.mean(dtype=np.float64) == pytest.approx(crop["mean"], abs=1e-4)
        assert pixels.std(dtype=np.float64) == pytest.approx(crop["std"], abs=1e-4)
        for place, value in crop["px"].items():
            assert pixels[tuple(map(int, place.split(",")))] == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("size", [(896, 1344), (448, 5376), (500, 448), (448, 448)])
def test_global_view_equals_torch_bicubic(size):
    torch = pytest.importorskip("torch")
    pixels = np.random.default_rng(3).random((*size, 3), np.float32)
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None], size=(448, 448), mode="bicubic", align_corners=False
    )
    np.testing.assert_allclose(resize_bicubic(pixels, 448, 448), wanted[0].permute(1, 2, 0), atol=2e-6)


def test_padding_is_white_and_masked_at_right_and_bottom():
    tiles = tile_image(np.zeros((100, 60, 3), np.uint8), SMALL)
    local_px, local_mask = tiles.pixels[1], tiles.patch_mask[1]
    assert tiles.patch_mask.shape == (2, 8, 8)
    assert tiles.patch_mask[0].all()
    # 60 x 100 becomes 67 x 112: 45 white columns, three of eight patches hold no picture at all.
    assert (local_px[:, :, 67:] == 1.0).all()
    assert (local_px[:, :, :67] == -1.0).all()
    assert local_mask[:, :5].all()
    assert not local_mask[:, 5:].any()
    assert tiles.num_tokens == 4 * 5 + 1 + 4 * (3 + 1)


def test_small_crops_count_tokens_by_the_same_rule():
    tiles = tile_image(ramp_picture(224, 112), SMALL)
    assert tiles.pixels.shape == (3, 3, 112, 112)
    assert tiles.size_px == (112, 224)
    assert tiles.num_tokens == 16 + 4 + 1 + 4 * (8 + 1)


def test_crops_run_row_major_through_the_picture():
    picture = np.zeros((224, 224, 3), np.uint8)
    for place, level in enumerate((10, 20, 30, 40)):
        row, column = divmod(place, 2)
        picture[row * 112 : row * 112 + 112, column * 112 : column * 112 + 112] = level
    tiles = tile_image(picture, SMALL)
    levels = np.round((tiles.pixels[1:].mean(axis=(1, 2, 3)) + 1) * 127.5)
    assert levels.tolist() == [10, 20, 30, 40]


def test_less_detail_costs_fewer_tokens():
    full, low = plan_tiles(600, 600, SMALL), plan_tiles(600, 600, SMALL, max_crops=1)
    assert low.grid == (1, 1)
    assert low.num_tokens < full.num_tokens
    assert tile_image(ramp_picture(600, 600), SMALL, max_crops=1).pixels.shape[0] == 2


@pytest.mark.parametrize("max_crops", [0, -1, 7])
def test_detail_outside_the_config_is_refused(max_crops: int):
    with pytest.raises(InvalidRequest, match="from 1 to 6"):
        plan_tiles(600, 600, SMALL, max_crops)


@pytest.mark.parametrize("size", [(20000, 1), (1, 20000), (448 * 50, 9)])
def test_extreme_aspect_is_refused_with_both_sizes(size):
    with pytest.raises(InvalidMedia, match=rf"{size[0]} x {size[1]} pixels, too long and thin"):
        plan_tiles(*size, OFFICIAL)


def test_picture_without_pixels_is_refused():
    with pytest.raises(InvalidMedia, match="no content"):
        plan_tiles(0, 10, OFFICIAL)
    with pytest.raises(InvalidMedia, match="uint8"):
        tile_image(np.zeros((10, 10, 3), np.float32), SMALL)


def test_digest_tells_equal_bytes_of_other_shape_apart():
    # One white crop with a white border, and one white crop without: equal pixels, other masks.
    full, half = np.full((112, 112, 3), 255, np.uint8), np.full((112, 56, 3), 255, np.uint8)
    np.testing.assert_array_equal(tile_image(full, SMALL).pixels, tile_image(half, SMALL).pixels)
    assert tile_image(full, SMALL).digest != tile_image(half, SMALL).digest


def test_digest_follows_the_picture():
    wide, tall = np.zeros((112, 224, 3), np.uint8), np.zeros((224, 112, 3), np.uint8)
    assert tile_image(wide, SMALL).digest == tile_image(wide.copy(), SMALL).digest
    assert tile_image(wide, SMALL).digest != tile_image(tall, SMALL).digest
    assert tile_image(wide, SMALL).digest != tile_image(wide + 1, SMALL).digest
