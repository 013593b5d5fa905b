"""Detail as a limit on crops: the published table at every detail, from the size alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from phi4.configs import PHI4_MULTIMODAL
from phi4.errors import InvalidMedia, InvalidRequest
from phi4.processing.detail import DETAILS, checked_detail, crop_limit, picture_costs, with_detail
from phi4.processing.tiles import plan_tiles, tile_image
from phi4.testing.media import ramp_picture
from phi4.types import AudioPart, FilePart, ImagePart, Message, TextPart, VideoPart

assert PHI4_MULTIMODAL.vision is not None
OFFICIAL = PHI4_MULTIMODAL.vision
SMALL = replace(OFFICIAL, crop_size=56, max_crops=6)

# Width and height, crops and tokens at "high" and "auto"; the same at "low".
TABLE = [
    ((448, 448), (2, 545), (2, 545)),
    ((100, 100), (2, 545), (2, 545)),
    ((28, 448), (2, 305), (2, 305)),
    ((640, 480), (5, 1065), (2, 477)),
    ((1024, 768), (7, 1681), (2, 477)),
    ((1000, 600), (7, 1694), (2, 443)),
    ((1344, 896), (7, 1841), (2, 460)),
    ((896, 1344), (7, 1857), (2, 465)),
    ((1344, 1344), (10, 2625), (2, 545)),
    ((1920, 1080), (16, 3918), (2, 426)),
    ((3000, 2000), (36, 8748), (2, 460)),
    ((2688, 2688), (37, 9585), (2, 545)),
    ((4000, 3000), (13, 3393), (2, 477)),
    ((448, 16128), (37, 10065), (2, 305)),
    ((100, 3000), (8, 833), (2, 305)),
    ((5000, 4000), (21, 5457), (2, 494)),
    ((10000, 1000), (11, 2849), (2, 307)),
    ((8448, 8448), (37, 9585), (2, 545)),
]


@pytest.mark.parametrize(("size", "high", "low"), TABLE)
def test_costs_of_the_published_sizes(
    size: tuple[int, int], high: tuple[int, int], low: tuple[int, int]
) -> None:
    costs = {name: (plan.num_crops, plan.num_tokens) for name, plan in picture_costs(*size, OFFICIAL).items()}
    assert costs == {"low": low, "auto": high, "high": high}


@pytest.mark.parametrize("size", [(150, 100), (56, 56), (30, 300), (500, 400)])
def test_what_is_told_is_what_tiling_makes(size: tuple[int, int]) -> None:
    picture = ramp_picture(*size)
    default = tile_image(picture, SMALL)
    for detail, plan in picture_costs(*size, SMALL).items():
        made = tile_image(picture, SMALL, crop_limit(detail, *size, SMALL))
        assert (len(made.pixels), made.num_tokens) == (plan.num_crops, plan.num_tokens)
        # Bit for bit what pictures without a detail are, except where less was asked for.
        assert (made.digest == default.digest) == (detail != "low" or default.pixels.shape[0] == 2)


def test_picture_too_thin_for_one_crop_gets_as_few_as_show_it() -> None:
    assert crop_limit("low", 10_000, 100, OFFICIAL) == 3
    with pytest.raises(InvalidMedia, match="too long and thin"):
        plan_tiles(10_000, 100, OFFICIAL, 2)
    costs = picture_costs(10_000, 100, OFFICIAL)
    assert (costs["low"].num_crops, costs["high"].num_crops) == (4, 24)


def test_picture_nothing_can_show_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidMedia, match="strip is 30000 x 10 pixels, too long and thin"):
        picture_costs(30_000, 10, OFFICIAL, name="strip")


def test_no_detail_goes_beyond_the_limit_of_the_model_as_it_was_loaded() -> None:
    costs = picture_costs(3000, 2000, OFFICIAL, 4)
    assert {name: plan.num_crops for name, plan in costs.items()} == {"low": 2, "auto": 5, "high": 5}
    with pytest.raises(InvalidRequest, match="from 1 to 36"):
        picture_costs(3000, 2000, OFFICIAL, 37)


@pytest.mark.parametrize("value", ["medium", "LOW", "", None, 1, ["low"], b"low"])
def test_other_details_are_refused(value: object) -> None:
    with pytest.raises(InvalidRequest, match=r"here is .*; valid are 'low', 'auto', 'high'"):
        checked_detail(value, "here")
    assert [checked_detail(detail) for detail in DETAILS] == list(DETAILS)


def test_detail_of_a_request_is_for_pictures_without_one() -> None:
    sound = AudioPart("talk.wav")
    turns = [
        Message("user", (ImagePart("a.png"), ImagePart("b.png", "high"), sound)),
        Message("assistant", (TextPart("A"),)),
        Message("user", (ImagePart("c.png"),)),
    ]
    film, files = VideoPart("d.mp4"), (FilePart("e.pdf"), FilePart("f.pdf", detail="auto"))
    turns.append(Message("user", (film, *files)))
    told = with_detail(turns, "low")
    assert told[3].parts == (replace(film, detail="low"), replace(files[0], detail="low"), files[1])
    assert told[0].parts == (ImagePart("a.png", "low"), ImagePart("b.png", "high"), sound)
    assert told[1] == turns[1] and told[2].parts == (ImagePart("c.png", "low"),)
    assert with_detail(turns, None) == tuple(turns)
    with pytest.raises(InvalidRequest, match="detail is 'best'"):
        with_detail(turns, "best")  # type: ignore[arg-type]
