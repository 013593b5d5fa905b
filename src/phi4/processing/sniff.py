"""What a file is, told from its first bytes; a name or a declared type is never believed.

`sniff` names the formats this package reads and those that people pass by mistake, so that an error can say
"is a PDF document" instead of "unknown". `image_size` reads width and height from a header, so that a picture
that is too big is refused before any decoder sees it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO, Literal

HEAD_BYTES = 64


@dataclass(frozen=True)
class MediaFormat:
    """A recognised format.

    Attributes:
        id: Short name, upper case, as Pillow spells it for pictures.
        kind: "video" = a container that may hold an audio track; "other" = recognised but not readable here.
        title: For messages, with article.
    """

    id: str
    kind: Literal["image", "audio", "video", "other"]
    title: str


_PDF = MediaFormat("PDF", "other", "a PDF document")
_PREFIXES: tuple[tuple[bytes, MediaFormat], ...] = (
    (b"\x89PNG\r\n\x1a\n", MediaFormat("PNG", "image", "a PNG picture")),
    (b"\xff\xd8\xff", MediaFormat("JPEG", "image", "a JPEG picture")),
    (b"GIF87a", MediaFormat("GIF", "image", "a GIF picture")),
    (b"GIF89a", MediaFormat("GIF", "image", "a GIF picture")),
    (b"fLaC", MediaFormat("FLAC", "audio", "a FLAC recording")),
    (b"OggS", MediaFormat("OGG", "audio", "an OGG recording")),
    (b"ID3", MediaFormat("MP3", "audio", "an MP3 recording")),
    (b"\x1aE\xdf\xa3", MediaFormat("WEBM", "video", "a WebM or Matroska file")),
    (b"II*\x00", MediaFormat("TIFF", "other", "a TIFF picture")),
    (b"MM\x00*", MediaFormat("TIFF", "other", "a TIFF picture")),
    (b"BM", MediaFormat("BMP", "other", "a BMP picture")),
    (b"%PDF", _PDF),
    (b"%!PS", MediaFormat("EPS", "other", "a PostScript document")),
    (b"FORM", MediaFormat("AIFF", "other", "an AIFF recording")),
    (b"SIMPLE  =", MediaFormat("FITS", "other", "a FITS picture")),
    (b"PK\x03\x04", MediaFormat("ZIP", "other", "a ZIP archive")),
    (b"\x1f\x8b", MediaFormat("GZIP", "other", "a gzip archive")),
)
_WEBP = MediaFormat("WEBP", "image", "a WebP picture")
_WAV = MediaFormat("WAV", "audio", "a WAV recording")
_MP3 = MediaFormat("MP3", "audio", "an MP3 recording")
_MP4 = MediaFormat("MP4", "video", "an MP4, M4A or MOV file")
_HEIF = MediaFormat("HEIF", "other", "a HEIC or AVIF picture")
_TEXT = MediaFormat("TEXT", "other", "a text file")
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis")

_PNG_METADATA = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")
_MAX_PNG_CHUNKS = 65_536

_START_OF_SCAN = 0xDA
_BARE_MARKERS = frozenset({0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)})
"""Markers of a JPEG that no length follows."""

_MAX_JPEG_STEPS = 4096
"""Segments, fill bytes and junk before the pixels; the largest file holds a thousand whole segments."""


def sniff(head: bytes) -> MediaFormat | None:
    """Recognise a file from its first `HEAD_BYTES` bytes; None when nothing fits."""
    if head[:4] in (b"RIFF", b"RF64"):
        return {b"WEBP": _WEBP, b"WAVE": _WAV}.get(head[8:12])
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return _HEIF if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS else _MP4
    for prefix, found in _PREFIXES:
        if head.startswith(prefix):
            return found
    if _is_mpeg_audio_frame(head):
        return _MP3
    return _TEXT if _is_text(head) else None


def sniff_document(head: bytes) -> MediaFormat:
    """Recognise a document: PDF, a medium or an archive by their first bytes, and text in all other cases.

    Words come first: a letter may begin with "BM", as a BMP picture does.
    """
    if head.startswith(b"%PDF"):
        return _PDF
    if _is_text(head) or head[:2] in _UTF_16_MARKS:
        return _TEXT
    return sniff(head) or _TEXT


def image_size(format_id: str, stream: BinaryIO) -> tuple[int, int] | None:
    """Read (width, height) from the header of a PNG, JPEG, WebP or GIF; None when it has none in reach."""
    stream.seek(0)
    head = stream.read(HEAD_BYTES)
    if format_id == "JPEG":
        return _jpeg_size(stream)
    try:
        if format_id == "PNG":
            return struct.unpack_from(">II", head, 16) if head[12:16] == b"IHDR" else None
        if format_id == "GIF":
            return struct.unpack_from("<HH", head, 6)
        return _webp_size(head)
    except struct.error:
        return None


def png_tells_more_behind_its_pixels(stream: BinaryIO) -> bool:
    """Whether a PNG has metadata after its pixels, where programs that only append put it.

    Also True when that cannot be told: the file is cut short, or has more chunks than it needs.

    Source: PNG specification, 5.3: a chunk is its length, its type, its data and a checksum.
    """
    stream.seek(len(_PREFIXES[0][0]))
    pixels = False
    for _ in range(_MAX_PNG_CHUNKS):
        head = stream.read(8)
        if len(head) < 8:
            return True
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return False
        if pixels and kind in _PNG_METADATA:
            return True
        pixels = pixels or kind == b"IDAT"
        stream.seek(length + 4, 1)
    return True


def _is_mpeg_audio_frame(head: bytes) -> bool:
    """Frame sync with a layer, a bit rate and a sample rate that exist."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    version, layer = (head[1] >> 3) & 3, (head[1] >> 1) & 3
    return version != 1 and layer != 0 and head[2] >> 4 not in (0, 15) and (head[2] >> 2) & 3 != 3


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The head may end inside a character.
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return all(c.isprintable() or c in "\t\r\n" for c in text)


def _jpeg_size(stream: BinaryIO) -> tuple[int, int] | None:
    """Walk the segments to the start of the scan; the frame header on the way holds the size.

    Pillow walks the same bytes in Python, in the same steps: a file that takes too many is refused here.
    """
    size: tuple[int, int] | None = None
    stream.seek(2)
    for _ in range(_MAX_JPEG_STEPS):
        marker = stream.read(2)
        if len(marker) < 2:
            return None
        if marker[0] != 0xFF or marker[1] in (0x00, 0xFF):  # fill bytes, or junk that decoders skip
            stream.seek(-1, 1)
            continue
        if marker[1] in _BARE_MARKERS:
            continue
        if marker[1] == _START_OF_SCAN:
            return size
        header = stream.read(7)
        if len(header) < 7:
            return None
        if 0xC0 <= marker[1] <= 0xCF and marker[1] not in (0xC4, 0xCC):
            height, width = struct.unpack_from(">HH", header, 3)
            size = width, height
        length = struct.unpack_from(">H", header)[0]
        if length < 2:
            return None
        stream.seek(length - 7, 1)
    return None


def _webp_size(head: bytes) -> tuple[int, int] | None:
    chunk = head[12:16]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if chunk == b"VP8L":
        bits = struct.unpack_from("<I", head, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None
