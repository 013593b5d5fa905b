"""Videos: the right frames in order, upright, with their sound, at a bounded cost; the rest is refused."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from phi4.errors import InvalidMedia, InvalidRequest, MissingExtra
from phi4.processing import video as module
from phi4.processing.media import DEFAULT_LIMITS
from phi4.processing.video import FRAME_SIDE_PX, Video, load_video
from phi4.testing.files import frame_level, video_bytes
from phi4.testing.media import chirp, container_bytes, friendly_audio, friendly_images

HAS_AV = importlib.util.find_spec("av") is not None
pytestmark = pytest.mark.skipif(not HAS_AV, reason="PyAV is not installed")


def numbers(video: Video) -> list[int]:
    """Which frame each picture is, told from how light its right half is; frames below 32 are told apart."""
    levels = [float(np.asarray(frame)[:, -frame.size[0] // 4 :].mean()) for frame in video.frames]
    return [min(range(32), key=lambda number: abs(frame_level(number) - level)) for level in levels]


def spied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts every frame that a decoder gives."""
    seen: list[int] = []
    decoded = module._decoded

    def counting(*given: Any) -> Iterator[Any]:
        for frame in decoded(*given):
            seen.append(frame.pts)
            yield frame

    monkeypatch.setattr(module, "_decoded", counting)
    return seen


@pytest.mark.parametrize(
    ("format_id", "codec"), [("mp4", "libx264"), ("mov", "mpeg4"), ("webm", "libvpx-vp9"), ("webm", "libvpx")]
)
def test_one_frame_a_second_from_the_middle_of_each(format_id: str, codec: str) -> None:
    video = load_video(video_bytes(30, rate=10, format_id=format_id, codec=codec))
    assert numbers(video) == [5, 15, 25]
    assert video.times_s == pytest.approx((0.5, 1.5, 2.5), abs=0.01)
    assert video.duration_s == pytest.approx(3.0, abs=0.01) and video.samples is None
    assert all(frame.mode == "RGB" and frame.size == (64, 48) for frame in video.frames)


@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_as_many_frames_as_asked_evenly_spread(count: int) -> None:
    video = load_video(video_bytes(30), num_frames=count)
    assert numbers(video) == [int((number + 0.5) * 30 / count) for number in range(count)]


def test_a_short_video_gives_every_frame_it_has() -> None:
    assert numbers(load_video(video_bytes(3), num_frames=9)) == [0, 1, 2]
    assert numbers(load_video(video_bytes(1))) == [0]


def test_long_videos_give_sixteen_frames() -> None:
    video = load_video(video_bytes(120, rate=4))
    assert len(video.frames) == 16
    assert video.times_s == pytest.approx([30 * (k + 0.5) / 16 for k in range(16)], abs=0.26)


def test_sound_comes_with_the_frames_unless_it_is_not_wanted() -> None:
    content = video_bytes(20, samples=chirp(2.0))
    video = load_video(content)
    assert video.samples is not None and video.samples.dtype == np.float32
    assert len(video.samples) == pytest.approx(32000, abs=2100)  # AAC has frames of 1024 samples
    assert 0.2 < video.samples.std() < 0.5
    assert load_video(content, with_sound=False).samples is None


@pytest.mark.parametrize(
    ("rotation", "light_side"), [(90, "top"), (-90, "bottom"), (180, "left"), (0, "right")]
)
def test_frames_of_a_turned_telephone_are_upright(rotation: int, light_side: str) -> None:
    (picture,) = load_video(video_bytes(10, rotation=rotation)).frames
    pixels = np.asarray(picture.convert("L")).astype(int)
    assert picture.size == ((48, 64) if rotation in (90, -90) else (64, 48))
    halves = {
        "left": pixels[:, : pixels.shape[1] // 2],
        "right": pixels[:, pixels.shape[1] // 2 :],
        "top": pixels[: len(pixels) // 2],
        "bottom": pixels[len(pixels) // 2 :],
    }
    assert max(halves, key=lambda side: float(halves[side].mean())) == light_side


def test_large_frames_are_scaled_down() -> None:
    (picture,) = load_video(video_bytes(2, size=(1920, 1080))).frames
    assert picture.size == (FRAME_SIDE_PX, 756)


def test_no_more_is_decoded_than_is_shown_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spied(monkeypatch)
    load_video(video_bytes(30), num_frames=1)
    assert len(seen) == 16  # up to the one in the middle


def test_of_a_video_with_too_many_frames_only_those_that_stand_for_themselves_are_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = spied(monkeypatch)
    limits = replace(DEFAULT_LIMITS, max_decoded_frames=40)
    video = load_video(video_bytes(200, rate=20, distance=10), num_frames=5, limits=limits)
    assert len(seen) == len(video.frames) == 5
    assert video.times_s == pytest.approx([1.0, 3.0, 5.0, 7.0, 9.0], abs=0.51)


def test_limits_on_frames_seconds_pixels_bytes_and_time() -> None:
    content = video_bytes(30)
    for limit, words in (
        ({"max_video_s": 2.0}, "longer than the limit of 2 s: cut it"),
        ({"max_image_px": 64 * 47}, "frames of 64 x 48 pixels, over the limit of 3,008 pixels"),
        ({"max_image_side_px": 63}, "and 63 a side"),
        ({"max_video_bytes": 1000}, "over the limit of 1,000"),
        ({"max_decode_s": 0.0}, "takes longer than 0 s"),
    ):
        with pytest.raises(InvalidMedia, match=words):
            load_video(content, limits=replace(DEFAULT_LIMITS, **limit))  # type: ignore[arg-type]
    assert len(load_video(content, limits=replace(DEFAULT_LIMITS, max_frames=2)).frames) == 2
    for count in (0, 65, 2**31, True, 1.5, "3"):
        with pytest.raises(InvalidRequest, match=r"num_frames is .*give 1 to 64"):
            load_video(content, num_frames=count)  # type: ignore[arg-type]


def test_packets_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_PACKETS", 20)
    with pytest.raises(InvalidMedia, match="more than 20 packets"):
        load_video(video_bytes(30))


def test_seldom_used_decoders_are_out_of_reach() -> None:
    with pytest.raises(InvalidMedia, match=r"is encoded with mpeg2video: convert it to H\.264, VP9 or AV1"):
        load_video(video_bytes(3, rate=25, format_id="mov", codec="mpeg2video"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello, this is text", "is a text file: an MP4, MOV or WebM video was expected"),
        (friendly_images()["still.gif"], "is a GIF picture: an MP4, MOV or WebM video was expected"),
        (friendly_audio()["pcm16.wav"], "is a WAV recording: an MP4, MOV or WebM video was expected"),
        (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n", "is a text file"),
        (b"\0\0\0\x20ftypisom" + bytes(200), "not a whole, undamaged MP4 video"),
        (b"\x1aE\xdf\xa3" + bytes(200), "not a whole, undamaged WEBM video"),
    ],
)
def test_what_is_no_video_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(InvalidMedia, match=words):
        load_video(content)


def test_sound_alone_is_no_video() -> None:
    with pytest.raises(InvalidMedia, match="has no moving pictures: give its sound as a recording"):
        load_video(container_bytes(chirp(1.0), 16000))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_video_cut_short_gives_what_is_there_or_is_refused(share: float) -> None:
    content = video_bytes(30, format_id="webm", codec="libvpx-vp9")
    try:
        video = load_video(content[: int(share * len(content))])
    except InvalidMedia as error:
        assert "0x" not in str(error)
    else:
        assert video.frames and video.duration_s <= 3.01


def test_without_pyav_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "film.mp4"
    path.write_bytes(b"\0\0\0\x20ftypisom" + bytes(100))
    with pytest.raises(
        MissingExtra, match=r"film\.mp4' is an MP4.*frames needs PyAV.*pip install '\.\[video\]'$"
    ):
        load_video(path)


def test_frames_that_never_come_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def endless(*_: Any) -> Iterator[Any]:
        for number in itertools.count():
            asked.append(number)
            yield SimpleNamespace(pts=None)

    monkeypatch.setattr(module, "_decoded", endless)
    with pytest.raises(InvalidMedia, match="no frame that can be decoded"):
        load_video(video_bytes(3), limits=replace(DEFAULT_LIMITS, max_decoded_frames=10))
    assert len(asked) <= 12


def test_frames_that_are_too_large_are_refused_before_one_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spied(monkeypatch)
    with pytest.raises(InvalidMedia, match="over the limit of 100"):
        load_video(video_bytes(3), limits=replace(DEFAULT_LIMITS, max_image_px=100))
    assert seen == []


def test_the_cover_of_an_album_is_no_film() -> None:
    cover = SimpleNamespace(disposition=0x400)
    opened: Any = SimpleNamespace(name="'song.m4a'")
    with pytest.raises(InvalidMedia, match="has no moving pictures"):
        module._track(opened, SimpleNamespace(streams=SimpleNamespace(video=(cover,))), DEFAULT_LIMITS)
