"""The opener: sources, limits, strict base64, refusals, and names that are safe to print."""

from __future__ import annotations

import base64
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from phi4.errors import InvalidMedia, MissingExtra
from phi4.processing.media import DEFAULT_LIMITS, decoding_failed, display_name, open_media
from phi4.testing.media import friendly_audio, friendly_images, image_bytes, ramp_picture

PNG = friendly_images()["rgb.png"]
PNG_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()


@pytest.mark.parametrize("wrap", [str, Path])
def test_path_opens_and_is_named_in_quotes(tmp_path: Path, wrap):
    path = tmp_path / "sign.png"
    path.write_bytes(PNG)
    with open_media(wrap(path), "image") as media:
        assert media.format.id == "PNG"
        assert media.size_bytes == len(PNG)
        assert media.stream.read() == PNG
        assert media.name.endswith("sign.png'")
    assert media.stream.closed


@pytest.mark.parametrize("source", [PNG, PNG_URL, PNG_URL.replace("image/png", ""), "DATA:" + PNG_URL[5:]])
def test_bytes_and_data_url_open_without_showing_content(source):
    with open_media(source, "image") as media:
        assert media.stream.read() == PNG
        assert media.name == f"picture ({len(PNG)} bytes)"


def test_file_name_is_not_believed(tmp_path: Path):
    path = tmp_path / "sound.wav"
    path.write_bytes(PNG)
    with open_media(path, "image") as media:
        assert media.format.id == "PNG"
    with pytest.raises(
        InvalidMedia, match="is a PNG picture: a WAV, FLAC, OGG or MP3 recording was expected"
    ):
        open_media(path, "audio")


def test_missing_file_says_so():
    with pytest.raises(InvalidMedia, match=r"'nowhere/sign.png' does not exist: check the path"):
        open_media("nowhere/sign.png", "image")


def test_folder_is_refused(tmp_path: Path):
    with pytest.raises(InvalidMedia, match="is a folder"):
        open_media(tmp_path, "image")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_pipe_without_writer_is_refused_at_once(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.wav")
    start = time.monotonic()
    with pytest.raises(InvalidMedia, match="a pipe or a device"):
        open_media(tmp_path / "pipe.wav", "audio")
    assert time.monotonic() - start < 1


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no devices on this system")
def test_endless_device_is_refused():
    with pytest.raises(InvalidMedia, match="a pipe or a device"):
        open_media("/dev/zero", "audio")


@pytest.mark.parametrize("source", ["a\0b.png", "x" * 100_000, "x/" * 5000, ""])
def test_impossible_path_is_refused_with_a_short_message(source: str):
    with pytest.raises(InvalidMedia) as caught:
        open_media(source, "image")
    assert len(str(caught.value)) < 200


def test_paths_are_closed_to_strangers(tmp_path: Path):
    path = tmp_path / "sign.png"
    path.write_bytes(PNG)
    with pytest.raises(InvalidMedia, match="paths are not opened here"):
        open_media(str(path), "image", allow_files=False)
    assert open_media(PNG_URL, "image", allow_files=False).size_bytes == len(PNG)


@pytest.mark.parametrize("source", [None, 7, ["a.png"], {"url": "a.png"}])
def test_other_python_types_are_refused_by_name(source):
    with pytest.raises(InvalidMedia, match=type(source).__name__):
        open_media(source, "image")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"", "empty"),
        (b"hello, this is text", "text file"),
        (b"%PDF-1.4 ....", "PDF document"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(20), "HEIC or AVIF"),
        (b"PK\x03\x04" + bytes(20), "ZIP archive"),
        (bytes(range(128, 228)), "no known format"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "no known format"),
    ],
)
def test_other_content_is_named(source: bytes, reason: str):
    with pytest.raises(InvalidMedia, match=reason):
        open_media(source, "image")


@pytest.mark.parametrize("head", [b"\0\0\0\x20ftypM4A ", b"\0\0\0\x14ftypqt  ", b"\x1aE\xdf\xa3\x01"])
def test_container_that_cannot_be_decoded_is_refused_on_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes
):
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "talk.m4a"
    path.write_bytes(head + bytes(100))
    with pytest.raises(MissingExtra, match=r"talk\.m4a' is an? .* needs PyAV.*pip install '\.\[video\]'"):
        open_media(path, "audio")
    with pytest.raises(InvalidMedia, match="a PNG, JPEG, WebP or GIF picture was expected"):
        open_media(path, "image")


@pytest.mark.parametrize("name", sorted(friendly_audio()))
def test_recording_in_place_of_a_picture_is_refused(name: str):
    with pytest.raises(InvalidMedia, match="recording: a PNG, JPEG, WebP or GIF picture was expected"):
        open_media(friendly_audio()[name], "image")


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,####",
        "data:image/png;base64," + PNG_URL[22:-1],
        "data:image/png;base64," + PNG_URL[22:60] + "\n" + PNG_URL[60:],
        "data:image/png;base64, " + PNG_URL[22:],
        "data:image/png;base64," + PNG_URL[22:].replace("=", "%3D") + "%3D",
        "data:image/png;base64," + PNG_URL,
        "data:image/png;base64,日本",
        "data:image/png," + PNG_URL[22:],
        "data:image/png;base64",
        "data:",
        "data:text/html;base64," + PNG_URL[22:],
        "data:audio/wav;base64," + PNG_URL[22:],
        "data:" + "x" * 1000 + ";base64," + PNG_URL[22:],
        "data:image/png;base64,",
    ],
)
def test_loose_data_urls_are_refused_without_repeating_them(url: str):
    with pytest.raises(InvalidMedia) as caught:
        open_media(url, "image")
    assert len(str(caught.value)) < 250
    assert PNG_URL[40:60] not in str(caught.value)


def test_data_url_over_the_limit_is_refused_before_decoding():
    limits = replace(DEFAULT_LIMITS, max_image_bytes=1000)
    # Not valid base64: decoding first would complain about that instead.
    with pytest.raises(InvalidMedia, match="over the limit of 1,000"):
        open_media("data:image/png;base64," + "#" * 2000, "image", limits=limits)


def test_file_over_the_limit_is_refused_without_reading_it(tmp_path: Path):
    path = tmp_path / "big.png"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: takes no room on the disk
    with pytest.raises(InvalidMedia, match=r"has 1,099,511,627,776 bytes, over the limit of 67,108,864"):
        open_media(path, "image")


def test_limits_are_per_kind():
    limits = replace(DEFAULT_LIMITS, max_image_bytes=10)
    wav = friendly_audio()["pcm16.wav"]
    assert open_media(wav, "audio", limits=limits).size_bytes == len(wav)
    with pytest.raises(InvalidMedia, match="over the limit of 10"):
        open_media(PNG, "image", limits=limits)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/a.png",
        "https://example.com/a.png",
        "file:///etc/hostname",
        "ftp://example.com/a.png",
        "HTTP://example.com",
        "gopher://x",
        "unix+http://x",
        "jar://x",
    ],
)
def test_urls_are_refused_by_default_without_repeating_them(url: str):
    with pytest.raises(InvalidMedia, match="not opened") as caught:
        open_media(url, "image")
    assert "example.com" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("cannot identify <_io.BytesIO object at 0x7f3a2b1c9d00>", "cannot identify"),
        ("broken at 0x7f3a2b1c9d00", "broken at"),
        ("no such file: /srv/models/x", ""),
        ("x" * 500, ""),
    ],
)
def test_what_a_decoder_says_is_shown_without_addresses(said: str, shown: str):
    message = str(decoding_failed("picture (12 bytes)", "PNG picture", ValueError(said)))
    assert f"PNG picture ({shown})" in message if shown else "(" not in message.partition(" is not ")[2]
    assert "0x" not in message and "BytesIO" not in message and "/srv" not in message


def test_names_cannot_forge_a_terminal_or_flood_it():
    assert display_name("a\x1b[31m\nb.png") == r"'a\x1b[31m\x0ab.png'"
    assert display_name("žluť 日本.png") == "'žluť 日本.png'"
    assert len(display_name("x" * 10_000)) < 100


def test_whole_files_of_every_format_open(tmp_path: Path):
    for name, content in {**friendly_images(), **friendly_audio()}.items():
        (tmp_path / name).write_bytes(content)
        kind = "image" if name in friendly_images() else "audio"
        with open_media(tmp_path / name, kind) as media:
            assert media.format.kind == kind
    assert image_bytes("PNG", ramp_picture(3, 2))[:4] == b"\x89PNG"
