"""How closely a picture is looked at, and what that costs: known from its size, before it is decoded.

    costs = picture_costs(1344, 896, config.vision)
    costs["high"].num_crops, costs["high"].num_tokens      # 7, 1841
    costs["low"].num_crops, costs["low"].num_tokens        # 2, 460

OpenAI's three words are limits on the local crops. "high" is all the model may take, which is what the
released processor always does; "auto" leaves the choice to phi4 and means the same, so that answers equal the
reference unless somebody asks for less; "low" is as few crops as can show the picture, nearly always one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from phi4.errors import InvalidMedia, InvalidRequest
from phi4.processing.tiles import TilePlan, plan_tiles
from phi4.types import Detail, FilePart, ImagePart, Message, Part, VideoPart

if TYPE_CHECKING:
    from phi4.configs import VisionConfig

DETAILS: tuple[Detail, ...] = get_args(Detail)


def checked_detail(value: Any, where: str = "detail") -> Detail:
    """The value itself, when it is one of `DETAILS`.

    Args:
        value: What the caller gave.
        where: What errors call it.

    Raises:
        InvalidRequest: It is something else.
    """
    found = next((detail for detail in DETAILS if isinstance(value, str) and detail == value), None)
    if found is None:
        shown = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
        raise InvalidRequest(f"{where} is {shown[:60]}; valid are {', '.join(map(repr, DETAILS))}")
    return found


def with_detail(messages: Sequence[Message], detail: Detail | None) -> tuple[Message, ...]:
    """The conversation with this detail for every picture, video and file that has none of its own.

    Args:
        messages: The turns.
        detail: None = leave them as they are.

    Raises:
        InvalidRequest: There is no such detail.
    """
    if detail is None:
        return tuple(messages)
    chosen = checked_detail(detail)

    def told(part: Part) -> Part:
        if isinstance(part, ImagePart | VideoPart | FilePart) and part.detail is None:
            return replace(part, detail=chosen)
        return part

    return tuple(replace(message, parts=tuple(map(told, message.parts))) for message in messages)


def crop_limit(
    detail: Detail, width_px: int, height_px: int, cfg: VisionConfig, max_crops: int | None = None
) -> int | None:
    """The most local crops a picture may take; what `plan_tiles` and `tile_image` call `max_crops`.

    A picture so long and thin that one crop would show nothing of it gets as few more as it needs.

    Args:
        detail: How closely it is looked at.
        width_px: Width of the upright picture.
        height_px: Height of the upright picture.
        cfg: The vision config of the model.
        max_crops: A limit below the config's; None = the config's. No detail goes beyond it.

    Raises:
        InvalidRequest: There is no such detail, or `max_crops` is outside 1..cfg.max_crops.
    """
    if checked_detail(detail) != "low":
        return max_crops
    for limit in range(1, (cfg.max_crops if max_crops is None else max_crops) + 1):
        if _fits(width_px, height_px, cfg, limit):
            return limit
    return max_crops  # nothing can show it; whoever tiles it says why


def picture_costs(
    width_px: int,
    height_px: int,
    cfg: VisionConfig,
    max_crops: int | None = None,
    *,
    name: str = "the picture",
) -> dict[Detail, TilePlan]:
    """What a picture costs at each detail: crops the tower encodes and positions in the prompt.

    Args:
        width_px: Width of the upright picture.
        height_px: Height of the upright picture.
        cfg: The vision config of the model.
        max_crops: See `crop_limit`.
        name: What errors call the picture.

    Raises:
        InvalidMedia: The picture is empty, or so long and thin that nothing of it would be left.
        InvalidRequest: `max_crops` is outside 1..cfg.max_crops.
    """
    limits = {detail: crop_limit(detail, width_px, height_px, cfg, max_crops) for detail in DETAILS}
    return {detail: plan_tiles(width_px, height_px, cfg, limits[detail], name=name) for detail in DETAILS}


def _fits(width_px: int, height_px: int, cfg: VisionConfig, limit: int) -> bool:
    try:
        plan_tiles(width_px, height_px, cfg, limit)
    except InvalidMedia:
        return False
    return True
