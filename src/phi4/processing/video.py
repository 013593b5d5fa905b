"""Videos: an MP4, MOV or WebM file becomes a few frames and its sound track.

    video = load_video("visit.mp4")
    video.frames, video.times_s, video.samples

First all packets are counted without decoding any, so that length, frames and cost are known from the file
itself and not from what its header says. Then the frames that are shown are decoded, with those before them
that they need; of a long video only frames that stand for themselves. Everything is bounded: seconds, frames
decoded and shown, pixels, and time. No value of a request reaches a decoder's options. PyAV is needed (extra
`video`).

Left out on purpose: several tracks, subtitles, and pixels that are not square.
"""

from __future__ import annotations

import importlib
import math
import time
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image

from phi4.errors import InvalidMedia, InvalidRequest
from phi4.processing.audio import decode_audio
from phi4.processing.media import DEFAULT_LIMITS, MediaLimits, OpenedMedia, decoding_failed, open_media
from phi4.processing.mel import SAMPLE_RATE_HZ
from phi4.shapes import FloatArray
from phi4.types import MediaSource

FRAMES_PER_S = 1.0
DEFAULT_FRAMES = 16
"""What the released model was evaluated with on videos."""
FRAME_SIDE_PX = 1344
"""Longer side of a frame that is kept; larger ones are scaled down while they are converted."""
_CODECS = frozenset({"h264", "hevc", "av1", "vp8", "vp9", "mpeg4"})
"""Decoders a file may reach; FFmpeg has hundreds, and seldom-used ones are where its holes have been."""
_DEMUXERS = {"MP4": "mov", "WEBM": "matroska"}
_MAX_PACKETS = 1_000_000
_COVER_PICTURE = 0x400
"""FFmpeg's flag for the picture of an album, which counts as a track of one frame."""
_UPRIGHT = {
    90: Image.Transpose.ROTATE_90,
    -90: Image.Transpose.ROTATE_270,
    180: Image.Transpose.ROTATE_180,
    -180: Image.Transpose.ROTATE_180,
}
"""How a frame is turned that a telephone took sideways; both count counter-clockwise."""


@dataclass(frozen=True)
class Video:
    """What is shown and heard of a video.

    Attributes:
        frames: RGB pictures in order of time, upright.
        times_s: When each is shown, in seconds from the first frame of the file.
        duration_s: Length of the pictures.
        samples: `[S]` float32 sound at 16 kHz, mono; None = there is none, or it was not asked for.
    """

    frames: tuple[Image.Image, ...]
    times_s: tuple[float, ...]
    duration_s: float
    samples: FloatArray | None


@dataclass(frozen=True)
class _Survey:
    """What the packets of a file say, nothing decoded: times in units of the track, in decoding order."""

    times: tuple[int, ...]
    key_times: tuple[int, ...]
    unit_s: float
    has_sound: bool

    @property
    def duration_s(self) -> float:
        """From the first frame to the end of the last, which is shown as long as the mean one."""
        count = len(self.times)
        span = (max(self.times) - min(self.times)) * self.unit_s
        return span * count / (count - 1) if count > 1 else span


def load_video(
    source: MediaSource,
    *,
    num_frames: int | None = None,
    with_sound: bool = True,
    allow_remote: bool = False,
    allow_files: bool = True,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> Video:
    """Read frames and sound of a video.

    Args:
        source: A path, the bytes of a file, or a `data:` URL.
        num_frames: Frames to show, in the middle of as many equal spans; None = one a second, at most 16. A
            file with fewer gives all it has.
        with_sound: Whether the first sound track is decoded too.
        allow_remote: See `open_media`.
        allow_files: See `open_media`.
        limits: See `MediaLimits`.

    Raises:
        InvalidMedia: Missing, empty, of another format or an unusual codec, over a limit, damaged, or without
            pictures.
        InvalidRequest: `num_frames` is none, or more than the limit.
        MissingExtra: PyAV is not installed.
    """
    if num_frames is not None and (type(num_frames) is not int or not 1 <= num_frames <= limits.max_frames):
        raise InvalidRequest(f"num_frames is {num_frames!r}; give 1 to {limits.max_frames}, or leave it out")
    with open_media(
        source, "video", allow_remote=allow_remote, allow_files=allow_files, limits=limits
    ) as media:
        deadline = time.monotonic() + limits.max_decode_s
        try:
            survey = _survey(media, limits, deadline)
            found = _frames(media, survey, _wanted(survey, num_frames, limits), limits, deadline)
        except (InvalidMedia, InvalidRequest):
            raise
        except Exception as error:
            # Decoders let many exception types escape on damaged files; this is their one exit.
            raise decoding_failed(media.name, f"{media.format.id} video", error) from None
        samples = decode_audio(media, limits=limits) if with_sound and survey.has_sound else None
    first = min(survey.times)
    times_s = tuple(max(0.0, (at - first) * survey.unit_s) for at, _ in found)
    # Less than one window of the speech front end is no sound.
    heard = samples if samples is not None and len(samples) >= SAMPLE_RATE_HZ // 40 else None
    return Video(tuple(picture for _, picture in found), times_s, survey.duration_s, heard)


@contextmanager
def _opened(media: OpenedMedia) -> Iterator[Any]:
    av = importlib.import_module("av")  # `open_media` has made sure that it is there
    media.stream.seek(0)
    demuxer = _DEMUXERS[media.format.id]
    with av.open(media.stream, mode="r", format=demuxer, metadata_errors="replace") as container:
        yield container


def _track(media: OpenedMedia, container: Any, limits: MediaLimits) -> Any:
    """The first track of moving pictures, if its codec and its size may be decoded."""
    tracks = [t for t in container.streams.video if not int(t.disposition) & _COVER_PICTURE]
    if not tracks:
        raise InvalidMedia(f"{media.name} has no moving pictures: give its sound as a recording")
    codec = tracks[0].codec_context.codec.canonical_name
    if codec not in _CODECS:
        raise InvalidMedia(f"{media.name} is encoded with {codec}: convert it to H.264, VP9 or AV1")
    _check_size(media.name, tracks[0].codec_context.width, tracks[0].codec_context.height, limits)
    return tracks[0]


def _check_size(name: str, width: int, height: int, limits: MediaLimits) -> None:
    if min(width, height) < 1:
        raise InvalidMedia(f"{name} states no size of its pictures: convert it")
    if max(width, height) > limits.max_image_side_px or width * height > limits.max_image_px:
        raise InvalidMedia(
            f"{name} has frames of {width} x {height} pixels, over the limit of {limits.max_image_px:,} "
            f"pixels and {limits.max_image_side_px} a side: scale it down"
        )


def _survey(media: OpenedMedia, limits: MediaLimits, deadline: float) -> _Survey:
    """Read all packets without decoding any."""
    times: list[int] = []
    key_times: list[int] = []
    has_sound = False
    with _opened(media) as container:
        track = _track(media, container, limits)
        longest = limits.max_video_s / float(track.time_base)
        for number, packet in enumerate(container.demux(track, *container.streams.audio[:1])):
            if number >= _MAX_PACKETS:
                raise InvalidMedia(f"{media.name} has more than {_MAX_PACKETS:,} packets: convert it")
            _check_time(media.name, deadline, limits)
            if packet.pts is None or not packet.size:
                continue
            if packet.stream_index != track.index:
                has_sound = True
                continue
            times.append(packet.pts)
            key_times += [packet.pts] if packet.is_keyframe else []
            if abs(packet.pts - times[0]) > longest:
                raise InvalidMedia(
                    f"{media.name} is longer than the limit of {limits.max_video_s:g} s: cut it into pieces"
                )
        unit_s = float(track.time_base)
    if not times:
        raise InvalidMedia(f"{media.name} has no frames: record it again")
    return _Survey(tuple(times), tuple(key_times), unit_s, has_sound)


def _wanted(survey: _Survey, num_frames: int | None, limits: MediaLimits) -> tuple[int, ...]:
    """Times of the frames to show: those that are on screen in the middle of as many equal spans."""
    natural = min(DEFAULT_FRAMES, limits.max_frames, math.ceil(survey.duration_s * FRAMES_PER_S - 0.05))
    count = num_frames or max(1, natural)
    shown = sorted(set(survey.times))
    chosen = _in_the_middle(shown, count)
    if survey.times.index(chosen[-1]) < limits.max_decoded_frames or not survey.key_times:
        return chosen
    return _in_the_middle(sorted(set(survey.key_times)), count)


def _in_the_middle(shown: list[int], count: int) -> tuple[int, ...]:
    span = (shown[-1] - shown[0]) * len(shown) / max(1, len(shown) - 1)
    middles = (shown[0] + (number + 0.5) * span / count for number in range(count))
    return tuple(sorted({shown[max(0, bisect_right(shown, middle) - 1)] for middle in middles}))


def _frames(
    media: OpenedMedia, survey: _Survey, wanted: tuple[int, ...], limits: MediaLimits, deadline: float
) -> list[tuple[int, Image.Image]]:
    """Decode until the last wanted frame is there; a damaged file gives those it still has."""
    sparse = survey.times.index(wanted[-1]) >= limits.max_decoded_frames
    found: list[tuple[int, Image.Image]] = []
    with _opened(media) as container:
        track = _track(media, container, limits)
        decoded = _decoded(container, track, frozenset(wanted) if sparse else None)
        for number, frame in enumerate(decoded):
            _check_time(media.name, deadline, limits)
            if number >= limits.max_decoded_frames + len(wanted):
                break
            if frame.pts is not None and frame.pts >= wanted[len(found)]:
                found.append((frame.pts, _picture(frame, media.name, limits)))
                if len(found) == len(wanted):
                    break
    if not found:
        raise InvalidMedia(f"{media.name} has no frame that can be decoded: save or download it again")
    return found


def _decoded(container: Any, track: Any, only: frozenset[int] | None) -> Iterator[Any]:
    """Frames in order of time; with `only`, of the packets of these times alone."""
    for packet in container.demux(track):
        # The packet behind the last is empty and makes the decoder give what it still holds.
        if only is None or packet.pts is None or packet.pts in only:
            yield from packet.decode()


def _picture(frame: Any, name: str, limits: MediaLimits) -> Image.Image:
    """A frame as upright RGB, scaled down where it is large. Its size may differ from the track's."""
    _check_size(name, frame.width, frame.height, limits)
    scale = min(1.0, FRAME_SIDE_PX / max(frame.width, frame.height))
    width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
    picture = Image.fromarray(frame.reformat(width=width, height=height, format="rgb24").to_ndarray())
    turn = _UPRIGHT.get(frame.rotation)
    return picture if turn is None else picture.transpose(turn)


def _check_time(name: str, deadline: float, limits: MediaLimits) -> None:
    if time.monotonic() > deadline:
        raise InvalidMedia(
            f"{name} takes longer than {limits.max_decode_s:g} s to read: cut it into pieces or scale it down"
        )
