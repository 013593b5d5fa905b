"""Where patches and crops go: position ids of a crop, which patches are seen, the order of tokens.

A rule of the architecture that every rendering of the network follows, in plain numpy: nothing here ever
waits for an accelerator. How a picture is cut into crops is `phi4.processing.tiles`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phi4.shapes import BoolArray, IntArray


def position_ids(patch_mask: BoolArray) -> IntArray:
    """Rows of the learned position table for every patch of every crop.

    A crop that is partly padding has its valid patches stretched over the whole table: with n valid rows,
    row i uses row floor(i * g / n) of the table, columns likewise. Padded patches use id 0.

    Args:
        patch_mask: `[C, g, g]`, True = the patch shows picture; valid patches fill a top-left rectangle.

    Returns:
        `[C, g * g]` int64.

    Source: `vision_siglip_navit.py` of the released Phi-4-multimodal, its buckets in exact integer form.
    """
    grid = patch_mask.shape[1]
    steps = np.arange(grid)
    num_rows = patch_mask[:, :, 0].sum(axis=1)  # [C]
    num_cols = patch_mask[:, 0, :].sum(axis=1)
    rows = steps[None] * grid // np.maximum(num_rows, 1)[:, None]  # [C, g]
    cols = steps[None] * grid // np.maximum(num_cols, 1)[:, None]
    ids = rows[:, :, None] * grid + cols[:, None, :]
    return np.asarray(np.where(patch_mask, ids, 0).reshape(len(patch_mask), -1), dtype=np.int64)


def seen_patches(patch_mask: BoolArray) -> BoolArray:
    """Patches that attention inside a crop may look at, `[C, g * g]`, True = seen.

    Those that show picture. A crop of padding alone is never read; letting it see itself keeps its softmax
    finite.

    Args:
        patch_mask: `[C, g, g]`, True = the patch shows picture.
    """
    seen = patch_mask | ~patch_mask.any(axis=(1, 2), keepdims=True)
    return seen.reshape(len(seen), -1)


def pooled_size(patch_mask: BoolArray, crop_rows: int, crop_cols: int) -> tuple[int, int]:
    """Rows h' and columns w' of a picture's local map that are kept.

    Args:
        patch_mask: `[1 + crop_rows * crop_cols, g, g]` of one picture, global view first.
        crop_rows: Local crops from top to bottom.
        crop_cols: Local crops from left to right.
    """
    sampled = patch_mask[1:, ::2, ::2]
    half = sampled.shape[1]
    rows_first = sampled.reshape(crop_rows, crop_cols, half, half).transpose(0, 2, 1, 3)
    whole = rows_first.reshape(crop_rows * half, crop_cols * half)
    return int(whole[:, 0].sum()), int(whole[0].sum())


def token_index(
    patch_mask: BoolArray, crop_grids: Sequence[tuple[int, int]]
) -> tuple[IntArray, tuple[int, ...]]:
    """Which pooled vector stands at each token of each picture.

    The vectors are numbered crop by crop, row-major; after the last of them come two more: the row
    separator (`sub_GN`) and the one between local and global part (`glb_GN`).

    Args:
        patch_mask: `[C, g, g]`, the crops of all pictures one after the other.
        crop_grids: Per picture the (rows, columns) of its local crops.

    Returns:
        `[N_1 + N_2 + ...]` int64 for all pictures in order, and the lengths N_i.

    Source: `modeling_phi4mm.py` of the released model, order "sub_glb": local rows, separator, global rows;
    every row ends in a row separator.
    """
    num_crops, grid = patch_mask.shape[:2]
    half = grid // 2
    row_separator = num_crops * half * half
    pieces: list[IntArray] = []
    lengths: list[int] = []
    first = 0
    for crop_rows, crop_cols in crop_grids:
        count = 1 + crop_rows * crop_cols
        ids = first * half * half + np.arange(count * half * half).reshape(count, half, half)
        local = ids[1:].reshape(crop_rows, crop_cols, half, half).transpose(0, 2, 1, 3)
        rows, cols = pooled_size(patch_mask[first : first + count], crop_rows, crop_cols)
        local = local.reshape(crop_rows * half, crop_cols * half)[:rows, :cols]
        local, whole = (_with_separator(part, row_separator) for part in (local, ids[0]))
        pieces.append(np.concatenate((local, [row_separator + 1], whole)).astype(np.int64))
        lengths.append(len(pieces[-1]))
        first += count
    assert first == num_crops, "the crop grids name another number of crops than the mask holds"
    return np.concatenate(pieces), tuple(lengths)


def _with_separator(rows: IntArray, separator: int) -> IntArray:
    """Flatten `[h, w]` to `[h * (w + 1)]`, one separator after each row."""
    return np.pad(rows, ((0, 0), (0, 1)), constant_values=separator).reshape(-1)
