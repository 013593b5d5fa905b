"""The one opener for media: a path, bytes or a `data:` URL becomes a checked, seekable stream.

Everything that reads a picture, a recording, a video or a document comes through `open_media`, so size
limits, strict base64, refusal of devices and pipes, and readable names in errors are written once. What a
file is gets decided by its first bytes, never by its name. An http(s) URL is refused unless the caller allows
it (`remote`). Decoding is left to `images`, `audio`, `video` and `documents`.
"""

from __future__ import annotations

import binascii
import importlib
import io
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal

from phi4.errors import InvalidMedia, MissingExtra
from phi4.processing.remote import fetch
from phi4.processing.sniff import HEAD_BYTES, MediaFormat, sniff, sniff_document
from phi4.types import MediaSource

MediaKind = Literal["image", "audio", "video", "document"]

_MAX_DATA_URL_HEAD = 256
_MAX_SHOWN_NAME = 80
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_EXPECTED = {
    "image": "a PNG, JPEG, WebP or GIF picture",
    "audio": "a WAV, FLAC, OGG or MP3 recording",
    "video": "an MP4, MOV or WebM video",
    "document": "a PDF document, a web page or a text file",
}
_NOUNS = {"image": "picture", "audio": "recording", "video": "video", "document": "document"}
_DECLARED = {
    "image": ("image/",),
    "audio": ("audio/", "video/", "application/ogg"),
    "video": ("video/",),
    "document": ("application/", "text/"),
}
"""Beginnings of the types a `data:` URL may declare; what the content is gets looked at all the same."""
_INSTEAD = {
    "image": "give it as a picture",
    "audio": "give it as a recording",
    "video": "give it as a video",
}
"""What to do with a medium that came as a document."""


@dataclass(frozen=True)
class MediaLimits:
    """What a medium may cost. A server sets smaller ones; no request can raise them.

    Attributes:
        max_image_bytes: Size of a picture's file.
        max_image_px: Width times height, read from the header before decoding. A decoded pixel takes 4 bytes
            of memory, and up to five times that while it is decoded and converted (docs/media.md).
        max_image_side_px: Longer side.
        max_audio_bytes: Size of a recording's file.
        max_audio_s: Length of a recording; 30 minutes is the longest the released model was trained on.
        max_channels: Channels of a recording.
        min_rate_hz: Lowest sample rate.
        max_rate_hz: Highest sample rate.
        max_remote_bytes: Size of a file fetched from a URL, which is held in memory.
        remote_timeout_s: Time for the whole download, redirects included.
        max_video_bytes: Size of a video's file.
        max_video_s: Length of a video.
        max_frames: Frames shown of all videos of a conversation together.
        max_decoded_frames: Frames decoded of one video to get at those it shows; of longer ones only frames
            that stand for themselves are decoded.
        max_document_bytes: Size of a document's file.
        max_pages: Pages read of all PDF documents of a conversation together.
        max_document_chars: Characters read of all documents of a conversation together.
        max_decode_s: Time for reading one document, or the frames of one video.
    """

    max_image_bytes: int = 64 * 2**20
    max_image_px: int = 2**26
    max_image_side_px: int = 32768
    max_audio_bytes: int = 2**30
    max_audio_s: float = 1800.0
    max_channels: int = 32
    min_rate_hz: int = 1000
    max_rate_hz: int = 768_000
    max_remote_bytes: int = 64 * 2**20
    remote_timeout_s: float = 20.0
    max_video_bytes: int = 2**28
    max_video_s: float = 1800.0
    max_frames: int = 64
    max_decoded_frames: int = 6000
    max_document_bytes: int = 32 * 2**20
    max_pages: int = 32
    max_document_chars: int = 400_000
    max_decode_s: float = 60.0

    def max_bytes(self, kind: MediaKind) -> int:
        """Largest file of this kind."""
        return {
            "image": self.max_image_bytes,
            "audio": self.max_audio_bytes,
            "video": self.max_video_bytes,
            "document": self.max_document_bytes,
        }[kind]


DEFAULT_LIMITS = MediaLimits()


@dataclass(frozen=True)
class OpenedMedia:
    """A medium ready to decode; use as a context manager so that the file gets closed.

    Attributes:
        name: How errors call it: the path as given, or "picture (1234 bytes)"; never its content.
        stream: Seekable, at position 0.
        size_bytes: Size of the file.
        format: What its first bytes say it is.
    """

    name: str
    stream: BinaryIO
    size_bytes: int
    format: MediaFormat

    def __enter__(self) -> OpenedMedia:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.close()


def open_media(
    source: MediaSource,
    kind: MediaKind,
    *,
    allow_remote: bool = False,
    allow_files: bool = True,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> OpenedMedia:
    """Open a medium and check all that can be known without decoding.

    Args:
        source: A path, the bytes of a file, or a `data:` URL with base64 content.
        kind: What the caller needs; another kind is refused by name.
        allow_remote: Whether http(s) URLs may be fetched, from public addresses only.
        allow_files: False where the source comes from a stranger (a server): only bytes and `data:` URLs.
        limits: See `MediaLimits`.

    Raises:
        InvalidMedia: Missing, empty, too big, not a regular file, bad base64, a URL that may not be fetched,
            or of the wrong kind or format.
        MissingExtra: A video, or a recording in a container (M4A, MP4, MOV, WebM), and PyAV is not installed.
    """
    name, stream, size = _open_source(source, kind, allow_remote, allow_files, limits)
    try:
        if size == 0:
            raise InvalidMedia(f"{name} is empty (0 bytes): {_EXPECTED[kind]} was expected")
        if size > limits.max_bytes(kind):
            raise _too_big(name, size, limits.max_bytes(kind))
        head = stream.read(HEAD_BYTES)
        stream.seek(0)
        return OpenedMedia(name, stream, size, _checked_format(name, head, kind))
    except BaseException:
        stream.close()
        raise


def display_name(name: str) -> str:
    """Make a name safe to print: quoted, control characters escaped, long ones cut in the middle."""
    if len(name) > _MAX_SHOWN_NAME:
        name = f"{name[: _MAX_SHOWN_NAME - 30]}...{name[-27:]}"
    return "'" + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in name) + "'"


def decoding_failed(name: str, what: str, error: Exception) -> InvalidMedia:
    """Build the error for a decoder that gave up, without object addresses or anything else of ours in it."""
    reason = re.sub(r"<[^<>]*>|0x[0-9a-fA-F]+", "", str(error)).strip()
    plain = reason if 0 < len(reason) <= 120 and reason.isprintable() and "/" not in reason else ""
    detail = f" ({plain})" if plain else ""
    return InvalidMedia(f"{name} is not a whole, undamaged {what}{detail}: save or download it again")


def _open_source(
    source: MediaSource, kind: MediaKind, allow_remote: bool, allow_files: bool, limits: MediaLimits
) -> tuple[str, BinaryIO, int]:
    if isinstance(source, (bytes, bytearray, memoryview)):
        content = bytes(source)
    elif isinstance(source, str) and source[:5].lower() == "data:":
        content = _decode_data_url(source, kind, limits.max_bytes(kind))
    elif isinstance(source, str) and _SCHEME.match(source):
        if not (allow_remote and source.lower().startswith(("http://", "https://"))):
            raise _refused_url(source)
        content = fetch(source, min(limits.max_remote_bytes, limits.max_bytes(kind)), limits.remote_timeout_s)
    elif not isinstance(source, (str, Path)):
        raise InvalidMedia(f"a {type(source).__name__} is no medium: give a path, bytes or a data: URL")
    elif not allow_files:
        raise InvalidMedia("paths are not opened here: send the file's content as a data: URL")
    else:
        return _open_file(source)
    return f"{_NOUNS[kind]} ({len(content)} bytes)", io.BytesIO(content), len(content)


def _open_file(path: str | Path) -> tuple[str, BinaryIO, int]:
    """Open a regular file; a pipe or a device is refused instead of read for ever."""
    name = display_name(str(path))
    try:
        # Without O_NONBLOCK, opening a pipe that nobody writes to would hang.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise InvalidMedia(f"{name} does not exist: check the path") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a valid path"
        raise InvalidMedia(f"{name} cannot be opened: {reason}") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
        raise InvalidMedia(f"{name} is {what}: give a regular file")
    return name, os.fdopen(descriptor, "rb"), status.st_size


def _decode_data_url(url: str, kind: MediaKind, max_bytes: int) -> bytes:
    """Decode `data:<type>;base64,<content>` strictly, the encoded length checked first."""
    comma = url.find(",", 0, _MAX_DATA_URL_HEAD)
    if comma < 0:
        raise InvalidMedia("the data: URL has no comma: its form is data:image/png;base64,<content>")
    media_type, *parameters = url[5:comma].lower().split(";")
    if parameters[-1:] != ["base64"]:
        raise InvalidMedia("the data: URL is not base64: its form is data:image/png;base64,<content>")
    if media_type and not media_type.startswith((*_DECLARED[kind], "application/octet-stream")):
        raise InvalidMedia(f"the data: URL declares {display_name(media_type)}, not {_EXPECTED[kind]}")
    encoded_length = len(url) - comma - 1
    if encoded_length > 4 * (-(-max_bytes // 3)):
        raise _too_big("the content of the data: URL", encoded_length * 3 // 4, max_bytes)
    try:
        return binascii.a2b_base64(url[comma + 1 :], strict_mode=True)
    except ValueError as error:
        raise InvalidMedia(f"the data: URL holds broken base64 ({error}): encode the file again") from None


def _refused_url(url: str) -> InvalidMedia:
    scheme = url[: url.index("://")].lower()
    if scheme == "file":
        return InvalidMedia("file:// URLs are not opened: give the path itself")
    why = ", fetching is not allowed here" if scheme in ("http", "https") else ""
    advice = "download the file and give its path, its bytes or a data: URL"
    return InvalidMedia(f"{display_name(scheme)} URLs are not opened{why}: {advice}")


def _checked_format(name: str, head: bytes, kind: MediaKind) -> MediaFormat:
    if kind == "document":
        return _checked_document(name, head)
    found = sniff(head)
    if found is None:
        raise InvalidMedia(f"{name} is not {_EXPECTED[kind]}: its first bytes fit no known format")
    if found.kind == "video" and kind in ("audio", "video"):
        _require_pyav(name, found, "sound" if kind == "audio" else "frames")
        return found
    if found.kind != kind:
        raise InvalidMedia(f"{name} is {found.title}: {_EXPECTED[kind]} was expected")
    return found


def _checked_document(name: str, head: bytes) -> MediaFormat:
    """PDF, or what may be text; whether it is text to its end is for the reader to find out."""
    found = sniff_document(head)
    if found.id in ("PDF", "TEXT"):
        return found
    advice = _INSTEAD.get(found.kind, "convert it to PDF or to text")
    raise InvalidMedia(f"{name} is {found.title}: {_EXPECTED['document']} was expected; {advice}")


def _require_pyav(name: str, found: MediaFormat, wanted: str) -> None:
    """Refuse a container on opening: callers open media before they do what is costly, as loading a model."""
    try:
        importlib.import_module("av")
    except ImportError:
        raise MissingExtra(
            f"{name} is {found.title}: reading its {wanted} needs PyAV, from the checkout: "
            "pip install '.[video]'"
            + ("; or convert it to WAV, FLAC, OGG or MP3" if wanted == "sound" else "")
        ) from None


def _too_big(name: str, size: int, limit: int) -> InvalidMedia:
    return InvalidMedia(f"{name} has {size:,} bytes, over the limit of {limit:,}: make it smaller")
