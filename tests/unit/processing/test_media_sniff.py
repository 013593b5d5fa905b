"""Formats from first bytes, and sizes from headers."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from phi4.processing.sniff import HEAD_BYTES, image_size, sniff
from phi4.testing.media import friendly_audio, friendly_images, image_bytes, ramp_picture


@pytest.mark.parametrize("name", sorted(friendly_images()))
def test_header_size_of_every_picture_is_read(name: str):
    content = friendly_images()[name]
    found = sniff(content[:HEAD_BYTES])
    assert found is not None
    assert image_size(found.id, io.BytesIO(content)) == (40, 24)


@pytest.mark.parametrize("format_id", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("size", [(1, 1), (300, 7), (5, 1025)])
def test_header_size_equals_decoded_size(format_id: str, size: tuple[int, int]):
    content = image_bytes(format_id, ramp_picture(*size))
    assert image_size(format_id, io.BytesIO(content)) == size


def test_size_of_extended_webp_and_of_jpeg_behind_long_metadata_is_read():
    alpha = Image.fromarray(np.dstack([ramp_picture(70, 50), np.full((50, 70), 9, np.uint8)]))
    webp = image_bytes("WEBP", alpha)
    assert webp[12:16] == b"VP8X"
    assert image_size("WEBP", io.BytesIO(webp)) == (70, 50)
    jpeg = image_bytes("JPEG", ramp_picture(70, 50), icc_profile=bytes(200_000))
    assert image_size("JPEG", io.BytesIO(jpeg)) == (70, 50)


def with_front(front: bytes) -> bytes:
    """A whole JPEG picture with something between its first marker and the rest."""
    content = friendly_images()["photo.jpg"]
    return content[:2] + front + content[2:]


@pytest.mark.parametrize(
    "front",
    [b"\xff" * 100, b"\xff\xfe\x00\x02" * 1000, b"\xff\xd0" * 100, bytes(100), b"\xff\x00" * 100],
    ids=["fill bytes", "comments", "bare markers", "junk", "escaped"],
)
def test_size_behind_what_decoders_skip_is_read(front: bytes):
    assert image_size("JPEG", io.BytesIO(with_front(front))) == (40, 24)


@pytest.mark.parametrize("front", [b"\xff", b"\xff\xfe\x00\x02", b"\xff\xd0", b"\x00"])
def test_steps_through_a_jpeg_are_limited(front: bytes):
    content = io.BytesIO(with_front(front * 100_000))
    assert image_size("JPEG", content) is None
    assert content.tell() < 4 * 5000


def test_jpeg_without_a_scan_has_no_size():
    content = friendly_images()["photo.jpg"]
    assert image_size("JPEG", io.BytesIO(content[: content.index(b"\xff\xda")])) is None


@pytest.mark.parametrize("name", ["rgb.png", "photo.jpg", "lossy.webp", "lossless.webp", "still.gif"])
def test_cut_header_has_no_size_or_the_right_one(name: str):
    content = friendly_images()[name]
    found = sniff(content)
    assert found is not None
    for length in range(len(content)):
        assert image_size(found.id, io.BytesIO(content[:length])) in (None, (40, 24))
    assert image_size(found.id, io.BytesIO(content[:9])) is None


@pytest.mark.parametrize("name", sorted(friendly_audio()))
def test_recordings_are_recognised(name: str):
    found = sniff(friendly_audio()[name][:HEAD_BYTES])
    assert found is not None
    assert found.kind == "audio"
    assert found.id == name.rsplit(".", 1)[1].upper()


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"\x00\x00\x00\x20ftypM4A \x00", "MP4"),
        (b"\x00\x00\x00\x14ftypqt  \x00", "MP4"),
        (b"\x00\x00\x00\x08wide\x00\x00", "MP4"),
        (b"\x1aE\xdf\xa3\x01", "WEBM"),
        (b"\x00\x00\x00\x20ftypavif\x00", "HEIF"),
        ("naïve text with accents, cut inside a character é".encode()[:50], "TEXT"),
        (b'{"json": 1}', "TEXT"),
    ],
)
def test_containers_and_text_are_told_apart(head: bytes, found: str):
    recognised = sniff(head)
    assert recognised is not None
    assert recognised.id == found


@pytest.mark.parametrize(
    "head", [b"\xff\xff\xff\xff", b"\xff\xfb\xf0\x00", b"\xff\xe8\x90\x00", b"\x00" * 64, b"\x80abc"]
)
def test_noise_is_no_format(head: bytes):
    assert sniff(head) is None
