"""Pictures in crops: stretched positions, which patches are seen, the order of tokens."""

from __future__ import annotations

import numpy as np
import pytest

from phi4.configs.patches import pooled_size, position_ids, seen_patches, token_index


def test_valid_crop_uses_the_table_as_it_is() -> None:
    ids = position_ids(np.ones((2, 8, 8), dtype=np.bool_))
    assert np.array_equal(ids, [np.arange(64), np.arange(64)])


@pytest.mark.parametrize(("rows", "cols"), [(5, 8), (1, 1), (8, 3), (7, 2)])
def test_padded_crop_stretches_its_patches_over_the_table(rows: int, cols: int) -> None:
    mask = np.zeros((1, 8, 8), dtype=np.bool_)
    mask[0, :rows, :cols] = True
    ids = position_ids(mask).reshape(8, 8)
    for row in range(8):
        for col in range(8):
            inside = row < rows and col < cols
            assert ids[row, col] == (8 * (row * 8 // rows) + col * 8 // cols if inside else 0)


def test_padding_is_not_seen_beside_picture() -> None:
    mask = np.zeros((2, 4, 4), dtype=np.bool_)
    mask[0] = True
    mask[1, :3, :2] = True
    assert np.array_equal(seen_patches(mask), mask.reshape(2, 16))


def test_crop_of_padding_alone_sees_itself() -> None:
    mask = np.zeros((2, 4, 4), dtype=np.bool_)
    mask[0] = True
    assert seen_patches(mask).all()


def test_tokens_stand_in_the_released_order() -> None:
    # Two crops side by side, 8 patches a side, the last 3 patch columns padding: a local map of 4 x 7.
    mask = np.ones((3, 8, 8), dtype=np.bool_)
    mask[2, :, 5:] = False
    index, lengths = token_index(mask, [(1, 2)])
    row_end, middle = 48, 49
    expected: list[int] = []
    for row in range(4):
        left = [16 + 4 * row + col for col in range(4)]
        right = [32 + 4 * row + col for col in range(3)]
        expected += [*left, *right, row_end]
    expected.append(middle)
    for row in range(4):
        expected += [*(4 * row + col for col in range(4)), row_end]
    assert index.tolist() == expected
    assert lengths == (len(expected),)


def test_pictures_are_numbered_one_after_the_other() -> None:
    mask = np.ones((2 + 3, 4, 4), dtype=np.bool_)
    mask[3:, 3:] = False
    both, lengths = token_index(mask, [(1, 1), (1, 2)])
    alone, _ = token_index(mask[2:], [(1, 2)])
    second = both[lengths[0] :]
    assert lengths == (13, 17) and len(alone) == 17
    # Of one picture, the vectors move by those of the pictures before; so do the two separators at the end.
    assert np.array_equal(second, alone + 2 * 4)
    assert pooled_size(mask[2:], 1, 2) == (2, 4)
