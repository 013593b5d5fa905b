"""Where the characters of a rendered picture fall among the patches of its crops.

Generated pictures know which character stands where. As targets for the vision tower (one character
class for each patch that holds the middle of one) they teach reading directly, long before the decoder
could make anything of the tower's output. Real pictures have no such targets and simply give none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phi4.configs import VisionConfig
from phi4.processing.tiles import TilePlan, plan_tiles
from phi4.shapes import IntArray

FIRST_CHARACTER = "!"
NUM_CLASSES = 94
"""Visible ASCII characters, "!" to "~"."""


def glyph_targets(
    glyphs: Sequence[tuple[str, float, float]], width_px: int, height_px: int, config: VisionConfig
) -> IntArray:
    """Patches that hold the middle of a character.

    Args:
        glyphs: (character, x, y) in pixels of the picture; other than visible ASCII is passed over.
        width_px: Width of the picture.
        height_px: Height of the picture.
        config: Gives crops and patches.

    Returns:
        `[n, 2]` int64: place in the picture's flattened `[C, P]` patches, class; global view unused.
    """
    plan = plan_tiles(width_px, height_px, config)
    grid, crop_px = config.grid, config.crop_size
    found = []
    for character, x, y in glyphs:
        number = ord(character) - ord(FIRST_CHARACTER)
        across, down = _resized(x, y, width_px, height_px, plan)
        inside = 0 <= across < plan.resized_px[0] and 0 <= down < plan.resized_px[1]
        if not inside or not 0 <= number < NUM_CLASSES:
            continue
        crop = 1 + down // crop_px * plan.grid[0] + across // crop_px
        patch = down % crop_px // config.patch_size * grid + across % crop_px // config.patch_size
        found.append((crop * grid * grid + patch, number))
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def piece_targets(
    pieces: Sequence[tuple[int, str]],
    glyphs: Sequence[tuple[str, float, float]],
    width_px: int,
    height_px: int,
    config: VisionConfig,
) -> IntArray:
    """Image tokens that hold the middle of a piece of text, as the tokenizer cuts it.

    Args:
        pieces: (token id, its text) of everything written in the picture, in the order of `glyphs`.
        glyphs: See `glyph_targets`; exactly the visible characters of `pieces`.
        width_px: Width of the picture.
        height_px: Height of the picture.
        config: Gives crops and patches.

    Returns:
        `[n, 2]` int64: place among the picture's tokens in the prompt (local rows come first), token id.
    """
    plan = plan_tiles(width_px, height_px, config)
    columns, rows = (-(-count // 2) for count in plan.valid_patches)
    cell_px = 2 * config.patch_size
    found, start = [], 0
    for token_id, text in pieces:
        count = sum(not character.isspace() for character in text)
        mine, start = glyphs[start : start + count], start + count
        if not mine:
            continue
        x, y = (float(np.mean([glyph[axis] for glyph in mine])) for axis in (1, 2))
        across, down = _resized(x, y, width_px, height_px, plan)
        if 0 <= across // cell_px < columns and 0 <= down // cell_px < rows:
            found.append((down // cell_px * (columns + 1) + across // cell_px, token_id))
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _resized(x: float, y: float, width_px: int, height_px: int, plan: TilePlan) -> tuple[int, int]:
    """A point of the picture in pixels of the resized picture."""
    return int(x * plan.resized_px[0] / width_px), int(y * plan.resized_px[1] / height_px)
