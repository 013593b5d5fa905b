"""Dynamic-HD tiling: one picture becomes a global view and a grid of crops.

`plan_tiles` is arithmetic on the picture's size alone, so the cost in tokens is known before a pixel
is decoded; `tile_image` does the work and gives the `ImageArrays` a model takes. All numbers come from
the vision config (crop side, patch side, largest number of crops), so a small model with small crops
uses the same code. Left out: opening files (`phi4.processing.images`) and position ids (the tower's).

Source: dynamic-HD preprocessing of the released Phi-4-multimodal processor.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from phi4.errors import InvalidMedia, InvalidRequest
from phi4.shapes import AnyArray, BoolArray, FloatArray
from phi4.types import ImageArrays

if TYPE_CHECKING:
    from phi4.configs import VisionConfig

MIN_RESIZED_PX = 10
"""A picture thinner than this after resizing is refused, as the released processor does."""

WHITE = 255
_BICUBIC_A = -0.75


@dataclass(frozen=True)
class TilePlan:
    """Everything tiling decides from the size of a picture.

    Attributes:
        grid: (columns, rows) of local crops.
        resized_px: (width, height) of the picture after resizing.
        pad_px: (width, height) of the white border at the right and at the bottom.
        target_px: (width, height) of the padded picture, multiples of the crop side.
        valid_patches: (columns, rows) of patches that show picture, over all local crops.
        num_crops: Crops the tower encodes, global view included.
        num_tokens: Positions the picture takes in the prompt.
    """

    grid: tuple[int, int]
    resized_px: tuple[int, int]
    pad_px: tuple[int, int]
    target_px: tuple[int, int]
    valid_patches: tuple[int, int]
    num_crops: int
    num_tokens: int


def plan_tiles(
    width_px: int,
    height_px: int,
    cfg: VisionConfig,
    max_crops: int | None = None,
    *,
    name: str = "the picture",
) -> TilePlan:
    """Plan the tiling of a picture from its size.

    Args:
        width_px: Width of the upright picture.
        height_px: Height of the upright picture.
        cfg: Gives crop side, patch side and the largest number of local crops.
        max_crops: Fewer local crops than the config allows (less detail, fewer tokens); None = the config's.
        name: What errors call the picture.

    Raises:
        InvalidMedia: The picture is empty or so long and thin that nothing of it would be left.
        InvalidRequest: `max_crops` is outside 1..cfg.max_crops.
    """
    if width_px < 1 or height_px < 1:
        raise InvalidMedia(f"{name} is {width_px} x {height_px} pixels: it has no content")
    limit = cfg.max_crops if max_crops is None else max_crops
    if not 1 <= limit <= cfg.max_crops:
        raise InvalidRequest(f"max_crops is {limit}: give a number from 1 to {cfg.max_crops}")
    columns, rows = _choose_grid(width_px, height_px, cfg.crop_size, limit)
    target = (columns * cfg.crop_size, rows * cfg.crop_size)
    resized = _fit(width_px, height_px, target)
    if min(resized) < MIN_RESIZED_PX:
        raise InvalidMedia(
            f"{name} is {width_px} x {height_px} pixels, too long and thin: it would shrink to "
            f"{resized[0]} x {resized[1]}, and {MIN_RESIZED_PX} pixels is the least; crop it into pieces"
        )
    pad = (target[0] - resized[0], target[1] - resized[1])
    valid = (
        target[0] // cfg.patch_size - pad[0] // cfg.patch_size,
        target[1] // cfg.patch_size - pad[1] // cfg.patch_size,
    )
    num_tokens = cfg.num_tokens(valid_rows=valid[1], valid_cols=valid[0])
    return TilePlan((columns, rows), resized, pad, target, valid, 1 + columns * rows, num_tokens)


def tile_image(
    image: Image.Image | AnyArray,
    cfg: VisionConfig,
    max_crops: int | None = None,
    *,
    name: str = "the picture",
) -> ImageArrays:
    """Cut a picture into the arrays the vision tower takes.

    Args:
        image: RGB picture, or its pixels `[height, width, 3]` uint8.
        cfg: The vision config of the model.
        max_crops: See `plan_tiles`.
        name: What errors call the picture.

    Returns:
        Pixels `[C, 3, crop, crop]` in [-1, 1] (white is +1), patch mask, size, token count and digest.

    Raises:
        InvalidMedia: The picture cannot be tiled, see `plan_tiles`, or is not 8-bit RGB.
        InvalidRequest: `max_crops` is outside 1..cfg.max_crops.
    """
    picture = as_rgb(image, name)
    plan = plan_tiles(picture.width, picture.height, cfg, max_crops, name=name)
    padded = _resize_and_pad(picture, plan)
    crop, (columns, rows) = cfg.crop_size, plan.grid
    pixels = np.empty((plan.num_crops, 3, crop, crop), np.float32)
    pixels[0] = _global_view(padded, crop)
    # [rows, columns, 3, crop, crop]
    blocks = padded.reshape(rows, crop, columns, crop, 3).transpose(0, 2, 4, 1, 3)
    levels = np.ascontiguousarray(blocks).reshape(-1, 3, crop, crop)
    np.take(_normalised_levels(), levels, out=pixels[1:], mode="clip")
    mask = _patch_mask(plan, crop // cfg.patch_size)
    return ImageArrays(
        pixels=pixels,
        patch_mask=mask,
        size_px=(plan.target_px[1], plan.target_px[0]),
        num_tokens=plan.num_tokens,
        digest=_digest(pixels, mask, plan),
    )


def as_rgb(image: Image.Image | AnyArray, name: str = "the picture") -> Image.Image:
    """A decoded picture as Pillow's 8-bit RGB, pixels unchanged.

    Args:
        image: RGB picture, or its pixels `[height, width, 3]` uint8.
        name: What errors call the picture.

    Raises:
        InvalidMedia: It is something else.
    """
    if isinstance(image, Image.Image):
        if image.mode != "RGB":
            raise InvalidMedia(f"{name} has mode {image.mode}: open it with load_image, which gives RGB")
        return image
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InvalidMedia(
            f"{name} has shape {list(image.shape)} and type {image.dtype}: give [height, width, 3] uint8"
        )
    return Image.fromarray(np.ascontiguousarray(image))


def resize_bicubic(pixels: AnyArray, height_px: int, width_px: int) -> FloatArray:
    """Resize `[height, width, 3]` by plain bicubic interpolation -> float32.

    Keys kernel with a = -0.75, clamped borders, no antialias. Pillow's BICUBIC is another one
    (a = -0.5, antialiased), hence the own few lines.
    """
    targets = (height_px, width_px)
    # The axis that shrinks most goes first, so the picture between the passes is small.
    for axis in sorted((0, 1), key=lambda axis: targets[axis] / pixels.shape[axis]):
        index, weights = _bicubic_taps(pixels.shape[axis], targets[axis])
        shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
        taps = [np.take(pixels, index[:, tap], axis) * weights[:, tap].reshape(shape) for tap in range(4)]
        pixels = taps[0] + taps[1] + taps[2] + taps[3]
    return np.asarray(pixels, np.float32)


def _choose_grid(width: int, height: int, crop: int, limit: int) -> tuple[int, int]:
    """Columns and rows: enough crops for every pixel, or the grid of the nearest aspect ratio."""
    columns, rows = -(-width // crop), -(-height // crop)
    if columns * rows <= limit:
        return columns, rows
    best, best_gap = (1, 1), float("inf")
    for i, j in _grids(limit):
        gap = abs(width / height - i / j)
        # On an exact tie the bigger grid wins only when the picture has pixels to fill half of it.
        if gap < best_gap or (gap == best_gap and width * height > 0.5 * crop * crop * i * j):
            best, best_gap = (i, j), gap
    return best


@lru_cache(maxsize=64)
def _grids(limit: int) -> tuple[tuple[int, int], ...]:
    grids = [(i, j) for i in range(1, limit + 1) for j in range(1, limit // i + 1)]
    return tuple(sorted(grids, key=lambda grid: grid[0] * grid[1]))


def _fit(width: int, height: int, target: tuple[int, int]) -> tuple[int, int]:
    """Largest (width, height) of the picture's aspect inside the target, small pictures enlarged."""
    scale_w, scale_h = target[0] / width, target[1] / height
    if scale_w < scale_h:
        return target[0], int(height * scale_w)
    return min(int(width * scale_h), target[0]), target[1]


def _resize_and_pad(picture: Image.Image, plan: TilePlan) -> AnyArray:
    """Give `[target height, target width, 3]` uint8: bilinear as Pillow does it, white right and below."""
    if picture.size != plan.resized_px:
        picture = picture.resize(plan.resized_px, Image.Resampling.BILINEAR)
    padded = np.full((plan.target_px[1], plan.target_px[0], 3), WHITE, np.uint8)
    padded[: plan.resized_px[1], : plan.resized_px[0]] = np.asarray(picture)
    return padded


@lru_cache(maxsize=1)
def _normalised_levels() -> FloatArray:
    """The 256 grey levels as the model sees them: (v / 255 - 0.5) / 0.5."""
    levels = (np.arange(256, dtype=np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
    levels.flags.writeable = False
    return levels


def _global_view(padded: AnyArray, crop: int) -> FloatArray:
    """Squeeze the padded picture into one crop, aspect ignored -> `[3, crop, crop]`."""
    if padded.shape[:2] == (crop, crop):
        return _normalised_levels()[padded].transpose(2, 0, 1)
    # The weights of a pixel sum to 1, so interpolating grey levels first and normalising the small result
    # is the same up to float32 rounding, and the big picture is never held as floats.
    small = resize_bicubic(padded, crop, crop)
    return ((small / np.float32(255) - np.float32(0.5)) / np.float32(0.5)).transpose(2, 0, 1)


def _bicubic_taps(size_in: int, size_out: int) -> tuple[AnyArray, FloatArray]:
    """Source indices and weights of each output position, both `[size_out, 4]`.

    Coordinates are float32 on purpose: the reference computes them so, and on wide pictures it shows.
    """
    scale = np.float32(size_in) / np.float32(size_out)
    position = scale * (np.arange(size_out, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    first = np.floor(position)
    offset = (position - first).astype(np.float32)
    distance = np.stack([offset + 1, offset, 1 - offset, 2 - offset], axis=1)
    near = ((_BICUBIC_A + 2) * distance - (_BICUBIC_A + 3)) * distance * distance + 1
    far = _BICUBIC_A * (((distance - 5) * distance + 8) * distance - 4)
    weights = np.where(distance <= 1, near, far).astype(np.float32)
    index = first.astype(np.int64)[:, None] + np.arange(-1, 3)
    return np.clip(index, 0, size_in - 1), weights


def _patch_mask(plan: TilePlan, grid: int) -> BoolArray:
    """`[C, g, g]`, True = picture. The global view counts as all picture."""
    columns, rows = plan.grid
    whole = np.zeros((rows * grid, columns * grid), np.bool_)
    whole[: plan.valid_patches[1], : plan.valid_patches[0]] = True
    local = whole.reshape(rows, grid, columns, grid).transpose(0, 2, 1, 3).reshape(-1, grid, grid)
    return np.ascontiguousarray(np.concatenate([np.ones((1, grid, grid), np.bool_), local]))


def _digest(pixels: FloatArray, mask: BoolArray, plan: TilePlan) -> str:
    # Without the grid, a plain wide picture and a plain tall one would be the same to a cache.
    digest = hashlib.sha256(repr((pixels.shape, mask.shape, plan.grid)).encode())
    digest.update(pixels.data)
    digest.update(mask.data)
    return digest.hexdigest()
