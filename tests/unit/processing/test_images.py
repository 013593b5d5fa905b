"""Pictures: every mode becomes upright RGB; bombs and damage are refused cheaply and in plain words."""

from __future__ import annotations

import io
import struct
import sys
import threading
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from phi4.errors import InvalidMedia
from phi4.processing.images import load_image, picture_size, upright_rgb
from phi4.processing.media import DEFAULT_LIMITS
from phi4.testing.media import friendly_images, hostile_images, image_bytes, ramp_picture

PIXELS = ramp_picture(40, 24)


def decoded(content: bytes) -> np.ndarray:
    image = load_image(content)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("name", sorted(friendly_images()))
def test_every_format_and_mode_becomes_rgb(name: str):
    assert decoded(friendly_images()[name]).shape == (24, 40, 3)


@pytest.mark.parametrize("name", ["rgb.png", "alpha.png", "lossless.webp"])
def test_lossless_formats_keep_every_pixel(name: str):
    np.testing.assert_array_equal(decoded(friendly_images()[name]), PIXELS)


def test_jpeg_stays_close_to_the_picture():
    grey = np.full((24, 40, 3), 99, np.uint8)
    assert np.abs(decoded(image_bytes("JPEG", grey)).astype(int) - 99).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_tag_is_followed(orientation: int):
    upright = np.zeros((24, 40, 3), np.uint8)
    upright[:8, :8] = 200  # a mark in the upper left corner, and a half mark to its right
    upright[:8, 8:16] = 100
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.transpose(1, 0, 2), 6: np.rot90(upright), 7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    for format_id in ("PNG", "JPEG", "WEBP"):
        options = (
            {"lossless": True} if format_id == "WEBP" else {"quality": 100} if format_id == "JPEG" else {}
        )
        content = image_bytes(format_id, np.ascontiguousarray(stored), exif=exif.tobytes(), **options)
        assert np.abs(decoded(content).astype(int) - upright).max() <= 4, format_id


def test_transparency_is_laid_on_white():
    layers = np.zeros((24, 40, 4), np.uint8)
    layers[:, :20] = (255, 0, 0, 255)
    layers[:, 20:] = (0, 0, 0, 0)
    layers[0, 0] = (0, 0, 0, 128)
    for format_id in ("PNG", "WEBP"):
        options = {"lossless": True} if format_id == "WEBP" else {}
        pixels = decoded(image_bytes(format_id, layers, **options))
        assert pixels[5, 5].tolist() == [255, 0, 0]
        assert pixels[5, 30].tolist() == [255, 255, 255]
        assert abs(int(pixels[0, 0, 0]) - 127) <= 1


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_transparent_colour_of_a_file_without_alpha_becomes_white(mode: str):
    picture = Image.fromarray(np.zeros((24, 40, 3), np.uint8)).convert(mode)
    key = (0, 0, 0) if mode == "RGB" else 0
    assert decoded(image_bytes("PNG", picture, transparency=key)).min() == 255
    assert decoded(image_bytes("PNG", picture)).max() == 0


def test_sixteen_bit_grey_keeps_its_upper_byte():
    levels = np.linspace(0, 65535, 24 * 40).astype(np.uint16).reshape(24, 40)
    pixels = decoded(image_bytes("PNG", Image.fromarray(levels)))
    np.testing.assert_array_equal(pixels[:, :, 1], levels >> 8)


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (40, 24), colour) for colour in ("red", "green", "blue")]
    for format_id in ("GIF", "WEBP", "PNG"):
        content = image_bytes(format_id, frames[0], save_all=True, append_images=frames[1:])
        assert abs(decoded(content)[5, 5].astype(int) - (255, 0, 0)).max() <= 3, format_id


@pytest.fixture(scope="module")
def refused(measure_loading: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """What each hostile picture came to, in a process of its own."""
    return measure_loading("image", hostile_images())


@pytest.mark.parametrize("name", sorted(hostile_images()))
def test_hostile_picture_is_refused_quickly_in_plain_words(refused: dict[str, Any], name: str):
    found = refused[name]
    assert found.message is not None and name in found.message
    assert not any(leak in found.message for leak in ("0x", "<", "Traceback", "BytesIO"))
    assert found.cpu_s < 1
    # The largest of them claims 16 megapixels, 4 bytes each, for which it only lacks the content.
    assert found.peak_bytes < 80 * 2**20


def test_200_megapixels_are_refused_from_the_header_with_the_limit(refused: dict[str, Any]):
    found = refused["200_megapixel.png"]
    assert "20000 x 10000 pixels, over the limit of 67,108,864 pixels" in found.message
    assert found.cpu_s < 0.1
    assert found.peak_bytes < 16 * 2**20


@pytest.mark.parametrize("name", ["fill_bytes.jpg", "segments.jpg", "bare_markers.jpg", "junk.jpg"])
def test_jpeg_without_end_before_its_pixels_is_refused_from_its_header(refused: dict[str, Any], name: str):
    assert "has no readable JPEG header: save it again" in refused[name].message


def test_a_plain_picture_is_held_once_while_it_is_decoded(measure_loading: Callable[..., dict[str, Any]]):
    side = 4096
    content = image_bytes("PNG", Image.new("RGB", (side, side), "green"))
    found = measure_loading("image", {"large.png": content})["large.png"]
    assert found.message is None
    assert 3 * side**2 < found.peak_bytes < 6 * side**2  # Pillow stores RGB in 4 bytes a pixel


def test_sixteen_bit_grey_is_converted_in_a_few_bytes_a_pixel():
    side = 2048
    picture = Image.fromarray(np.zeros((side, side), np.uint16))
    tracemalloc.start()
    try:
        upright_rgb(picture)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert side**2 < peak_bytes < 12 * side**2  # numpy's and Python's share of it; Pillow's is not traced


def test_smaller_limits_apply_to_the_header():
    limits = replace(DEFAULT_LIMITS, max_image_px=40 * 24 - 1)
    with pytest.raises(InvalidMedia, match="over the limit of 959 pixels"):
        load_image(friendly_images()["rgb.png"], limits=limits)
    with pytest.raises(InvalidMedia, match="over the limit of 39 a side"):
        load_image(friendly_images()["rgb.png"], limits=replace(DEFAULT_LIMITS, max_image_side_px=39))


def test_frame_that_exceeds_its_header_is_refused_undecoded():
    """A GIF says one size for its screen and another for its frame, and decoders follow the frame."""
    content = bytearray(image_bytes("GIF", Image.fromarray(ramp_picture(100, 100)).quantize()))
    content[6:10] = struct.pack("<HH", 8, 8)
    limits = replace(DEFAULT_LIMITS, max_image_px=1000)
    with pytest.raises(InvalidMedia, match="100 x 100 pixels, over the limit of 1,000"):
        load_image(bytes(content), limits=limits)


@pytest.mark.parametrize("name", sorted(friendly_images()))
def test_cut_picture_is_refused_unless_all_its_pixels_are_there(name: str):
    content = friendly_images()[name]
    whole = decoded(content)
    refused = 0
    for length in range(0, len(content), 16):
        try:
            np.testing.assert_array_equal(decoded(content[:length]), whole)
        except InvalidMedia:
            refused += 1
    assert refused >= 0.7 * (len(content) // 16)


def test_damaged_metadata_is_refused_although_warnings_are_ignored():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InvalidMedia, match="undamaged JPEG"):
            load_image(hostile_images()["broken_exif.jpg"])


@pytest.mark.parametrize("name", sorted(friendly_images()))
def test_a_pillow_image_is_seen_as_its_file_would_be(name: str):
    content = friendly_images()[name]
    opened = Image.open(io.BytesIO(content))
    np.testing.assert_array_equal(np.asarray(upright_rgb(opened)), decoded(content))


def test_transparent_pillow_images_are_laid_on_white_and_turned_ones_put_upright():
    clear = Image.new("RGBA", (4, 3), (0, 0, 0, 0))
    assert (np.asarray(upright_rgb(clear)) == 255).all()
    lying = Image.fromarray(PIXELS)
    lying.getexif()[0x0112] = 6
    assert upright_rgb(lying).size == (24, 40)


def test_a_pillow_image_of_a_cut_file_is_refused_in_plain_words():
    content = friendly_images()["rgb.png"]
    cut = Image.open(io.BytesIO(content[: len(content) // 2]))
    with pytest.raises(InvalidMedia, match="given Pillow image is not a whole"):
        upright_rgb(cut)


def test_warning_filters_survive_threads():
    filters, interval = warnings.filters, sys.getswitchinterval()
    before = list(filters)
    contents = [*friendly_images().values(), hostile_images()["broken_exif.jpg"]] * 40
    failures: list[BaseException] = []

    def work() -> None:
        for content in contents:
            try:
                load_image(content)
            except InvalidMedia:
                continue
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    sys.setswitchinterval(1e-6)  # threads meet inside the guarded part, not once in a thousand runs
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not failures
    assert warnings.filters is filters
    assert list(filters) == before


@pytest.mark.parametrize("name", sorted(friendly_images()))
def test_size_of_every_format_is_that_of_the_decoded_picture(name: str):
    assert picture_size(friendly_images()[name]) == load_image(friendly_images()[name]).size == (40, 24)


def test_size_of_a_decoded_picture_is_its_own():
    assert picture_size(PIXELS) == picture_size(Image.fromarray(PIXELS)) == (40, 24)
    with pytest.raises(InvalidMedia, match="uint8"):
        picture_size(PIXELS[0])


@pytest.mark.parametrize("format_id", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_size_is_that_of_the_upright_picture(format_id: str, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = image_bytes(format_id, PIXELS, exif=exif.tobytes())
    assert picture_size(content) == load_image(content).size == ((24, 40) if orientation > 4 else (40, 24))


def with_chunk_behind_pixels(kind: bytes, data: bytes) -> bytes:
    whole = image_bytes("PNG", PIXELS)
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return whole[:-12] + chunk + whole[-12:]


def test_orientation_behind_the_pixels_of_a_png_counts():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = with_chunk_behind_pixels(b"eXIf", exif.tobytes()[6:])
    assert picture_size(content) == load_image(content).size == (24, 40)
    text = with_chunk_behind_pixels(b"tEXt", b"Comment\0nothing")
    assert picture_size(text) == (40, 24)


def test_size_is_read_without_decoding(monkeypatch: pytest.MonkeyPatch):
    def decoder(*args: Any, **options: Any) -> None:
        raise AssertionError("decoded")

    contents = [friendly_images()[name] for name in ("rgb.png", "photo.jpg", "still.gif")]
    monkeypatch.setattr(ImageFile.ImageFile, "load", decoder)
    assert {picture_size(content) for content in contents} == {(40, 24)}
    # A picture cut short has a header all the same; whoever loads it will refuse it.
    assert picture_size(contents[1][:-40]) == (40, 24)


def test_size_over_a_limit_is_refused():
    with pytest.raises(InvalidMedia, match="over the limit of 20 a side"):
        picture_size(friendly_images()["rgb.png"], limits=replace(DEFAULT_LIMITS, max_image_side_px=20))
    with pytest.raises(InvalidMedia):
        picture_size(b"\x89PNG\r\n\x1a\nnothing")
