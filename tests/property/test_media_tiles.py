"""Tiling of any size: the plan keeps its promises, and the arrays keep those of the plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4.configs import PHI4_MULTIMODAL
from phi4.errors import InvalidMedia
from phi4.processing.detail import picture_costs
from phi4.processing.tiles import plan_tiles, tile_image
from phi4.testing.media import ramp_picture

assert PHI4_MULTIMODAL.vision is not None
OFFICIAL = PHI4_MULTIMODAL.vision
SIDES = st.one_of(st.integers(1, 600), st.integers(1, 40_000))


@settings(max_examples=300)
@given(SIDES, SIDES, st.sampled_from([(448, 14, 36), (112, 14, 6), (64, 8, 4), (28, 14, 1)]))
def test_plan_of_any_size_is_consistent(width: int, height: int, shape: tuple[int, int, int]):
    cfg = replace(OFFICIAL, crop_size=shape[0], patch_size=shape[1], max_crops=shape[2])
    try:
        plan = plan_tiles(width, height, cfg)
    except InvalidMedia as error:
        assert "too long and thin" in str(error)
        return
    assert 2 <= plan.num_crops <= cfg.max_crops + 1
    assert min(plan.pad_px) == 0
    for side in (0, 1):
        assert plan.resized_px[side] + plan.pad_px[side] == plan.target_px[side]
        assert plan.target_px[side] == plan.grid[side] * cfg.crop_size
        # Every patch with a pixel of the picture counts, no other does.
        assert plan.valid_patches[side] == -(-plan.resized_px[side] // cfg.patch_size)
    assert plan.num_tokens <= (1 + cfg.max_crops) * (cfg.pooled_grid * (cfg.pooled_grid + 1) + 1)


@settings(max_examples=40)
@given(st.integers(12, 500), st.integers(12, 500))
def test_arrays_follow_the_plan(width: int, height: int):
    cfg = replace(OFFICIAL, crop_size=56, max_crops=9)
    plan, tiles = plan_tiles(width, height, cfg), tile_image(ramp_picture(width, height), cfg)
    assert tiles.pixels.shape == (plan.num_crops, 3, 56, 56)
    assert tiles.num_tokens == plan.num_tokens
    assert tiles.patch_mask[1:].sum() == plan.valid_patches[0] * plan.valid_patches[1]
    local = tiles.pixels[1:]
    assert np.abs(local).max() <= 1.0
    # Reassembled, the crops are the padded picture: white where the plan pads.
    columns, rows = plan.grid
    whole = (
        local.reshape(rows, columns, 3, 56, 56).transpose(2, 0, 3, 1, 4).reshape(3, rows * 56, columns * 56)
    )
    assert (whole[:, plan.resized_px[1] :] == 1.0).all()
    assert (whole[:, :, plan.resized_px[0] :] == 1.0).all()


@settings(max_examples=300)
@given(SIDES, SIDES, st.sampled_from([(448, 14, 36), (112, 14, 6), (64, 8, 4), (28, 14, 1)]))
def test_less_detail_never_costs_more_and_is_possible_where_more_is(
    width: int, height: int, shape: tuple[int, int, int]
):
    cfg = replace(OFFICIAL, crop_size=shape[0], patch_size=shape[1], max_crops=shape[2])
    try:
        full = plan_tiles(width, height, cfg)
    except InvalidMedia:
        return
    costs = picture_costs(width, height, cfg)
    assert costs["high"] == costs["auto"] == full
    assert costs["low"].num_crops <= full.num_crops
    assert costs["low"].num_tokens <= full.num_tokens
