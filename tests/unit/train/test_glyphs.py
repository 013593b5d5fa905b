"""Characters and pieces of text fall on the patches and image tokens that show them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from phi4.configs import NANO, VisionConfig
from phi4.processing.tiles import plan_tiles, tile_image
from phi4.train.glyphs import FIRST_CHARACTER, glyph_targets, piece_targets


@pytest.fixture
def config() -> VisionConfig:
    assert NANO.vision is not None
    return NANO.vision


@pytest.mark.parametrize("size", [(224, 224), (300, 90), (112, 112), (500, 130)])
def test_a_mark_in_the_picture_stands_in_the_patch_that_is_named(
    size: tuple[int, int], config: VisionConfig
) -> None:
    random = np.random.default_rng(sum(size))
    for _ in range(12):
        x, y = (int(random.integers(6, side - 6)) for side in size)
        pixels = np.full((size[1], size[0], 3), 255, np.uint8)
        pixels[y - 1 : y + 2, x - 1 : x + 2] = 0
        arrays = tile_image(Image.fromarray(pixels), config)
        ((place, number),) = glyph_targets([("A", x + 0.5, y + 0.5)], *size, config)
        assert number == ord("A") - ord(FIRST_CHARACTER)
        patch = config.patch_size
        # [C, g, patch, g, patch], the darkest value of each patch, global view left out
        tiles = arrays.pixels.mean(axis=1).reshape(len(arrays.pixels), config.grid, patch, config.grid, patch)
        darkness = tiles.min(axis=(2, 4))
        darkness[0] = 1.0
        assert darkness.ravel()[place] == pytest.approx(darkness.min(), abs=0.6)
        assert darkness.ravel()[place] < 0.5


def test_pieces_count_image_tokens_row_by_row_with_a_separator_each(config: VisionConfig) -> None:
    plan = plan_tiles(224, 224, config)
    assert plan.resized_px == (224, 224) and plan.num_tokens == 8 * 9 + 1 + 4 * 5
    glyphs = [("a", 10.0, 5.0), ("b", 20.0, 5.0), ("c", 200.0, 100.0), ("d", 220.0, 215.0)]
    found = piece_targets([(7, "ab"), (8, " c"), (9, " "), (10, "d")], glyphs, 224, 224, config)
    # cells are 28 pixels: (15, 5) is row 0 column 0, (200, 100) row 3 column 7, (220, 215) row 7 column 7
    assert found.tolist() == [[0, 7], [3 * 9 + 7, 8], [7 * 9 + 7, 10]]


def test_what_lies_outside_or_is_not_ascii_gives_no_target(config: VisionConfig) -> None:
    assert glyph_targets([("é", 5, 5), ("a", -40, 5), ("b", 5, 9999)], 224, 224, config).shape == (0, 2)
    assert piece_targets([(3, "a")], [("a", 5, 9999)], 224, 224, config).shape == (0, 2)
