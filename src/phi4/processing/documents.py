"""Documents: PDF pages as pictures with their text, web pages and text files as text.

    document = load_document("report.pdf", pages=(1, 3))
    document.pages[0].picture, document.pages[0].text

A PDF is rendered and read by PDFium (pypdfium2, extra `serve`), one document at a time, since PDFium knows no
threads; its scripts are not run. Text must be UTF-8, or UTF-16 with its mark; a web page may also be in the
Western encodings it names. What a document is gets decided by its content, never by its name.

Left out on purpose: office formats, attachments of a PDF, and protection of this process from native code
that a file attacks: a server reads documents in a process that may die.
"""

from __future__ import annotations

import importlib
import math
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from PIL import Image

from phi4.errors import InvalidMedia, InvalidRequest, MissingExtra
from phi4.processing.html_text import declared_charset, html_text, is_html
from phi4.processing.media import DEFAULT_LIMITS, MediaLimits, OpenedMedia, decoding_failed, open_media
from phi4.types import MediaSource

PAGE_SIDE_PX = 1344
"""Longer side of a page's picture: three crops of 448 pixels, 115 pixels an inch of an A4 page."""
_MOST_SCALE = 4.0
"""Small pages are not blown up further than this; 1 is 72 pixels an inch."""
_MARKUP_FACTOR = 16
"""A web page may be this many times longer than the text it is allowed to hold."""
_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_WESTERN = frozenset({"iso-8859-1", "iso-8859-15", "latin-1", "latin1", "us-ascii", "windows-1252", "cp1252"})
# What PDFium writes for a hyphen at the end of a line, and for what it cannot read.
_SOFT_HYPHEN = re.compile("[\x02\ufffe]\r?\n?")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
"""Control characters that text files do not hold; form feed and escape do occur."""
_pdfium_at_work = threading.Lock()


@dataclass(frozen=True)
class Page:
    """A page of a PDF.

    Attributes:
        number: From 1.
        picture: The page as RGB; None where no pictures were asked for.
        text: The text it holds; empty for a scan.
    """

    number: int
    picture: Image.Image | None
    text: str


@dataclass(frozen=True)
class Document:
    """A document that was read.

    Attributes:
        name: How errors call it.
        kind: What it is.
        text: All of its text, of the pages that were read.
        pages: Of a PDF the pages that were read; empty for the other kinds.
        num_pages: Pages the PDF has; 0 for the other kinds.
    """

    name: str
    kind: str
    text: str
    pages: tuple[Page, ...] = ()
    num_pages: int = 0


def load_document(
    source: MediaSource,
    *,
    pages: tuple[int, int] | None = None,
    with_pictures: bool = True,
    allow_remote: bool = False,
    allow_files: bool = True,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> Document:
    """Read a document.

    Args:
        source: A path, the bytes of a file, or a `data:` URL.
        pages: First and last page of a PDF, from 1; None = all, which must not be more than the limit.
        with_pictures: Whether pages are rendered, for a model that sees.
        allow_remote: See `open_media`.
        allow_files: See `open_media`.
        limits: See `MediaLimits`.

    Raises:
        InvalidMedia: Missing, empty, of another kind, over a limit, damaged, locked, or not UTF-8.
        InvalidRequest: `pages` are not pages of this document.
        MissingExtra: A PDF, and pypdfium2 is not installed.
    """
    with open_media(
        source, "document", allow_remote=allow_remote, allow_files=allow_files, limits=limits
    ) as media:
        if media.format.id == "PDF":
            return _read_pdf(media, pages, with_pictures, limits)
        if pages is not None:
            raise InvalidRequest(f"pages {_span(pages)} of {media.name}: it is no PDF, so leave pages out")
        return _read_text(media, limits)


def parse_pages(value: object, where: str = "pages") -> tuple[int, int]:
    """First and last page out of "2-5", "3", 3 or [2, 5].

    Raises:
        InvalidRequest: It is none of these, or not from a page to the same or a later one.
    """
    found: list[int] = []
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,6}\s*(-\s*\d{1,6}\s*)?", value, re.ASCII):
        found = [int(number) for number in value.split("-")]
    elif type(value) is int:
        found = [value]
    elif isinstance(value, list | tuple) and len(value) == 2 and all(type(number) is int for number in value):
        found = list(value)
    if not found or not 1 <= found[0] <= found[-1]:
        raise InvalidRequest(
            f"{where} is {str(value)[:40]!r}; give pages such as '2-5' or '3', counted from 1"
        )
    return found[0], found[-1]


def _read_pdf(
    media: OpenedMedia, wanted: tuple[int, int] | None, with_pictures: bool, limits: MediaLimits
) -> Document:
    pdfium = _pdfium(media.name)
    deadline = time.monotonic() + limits.max_decode_s
    if not _pdfium_at_work.acquire(timeout=limits.max_decode_s):
        raise InvalidMedia(f"{media.name} had to wait too long for other PDF documents: send it again")
    try:
        with closing(pdfium.PdfDocument(media.stream.read())) as pdf:
            pdf.init_forms()  # before pages are loaded, or what was filled in does not show
            num_pages = len(pdf)
            span = _checked_pages(media.name, wanted, num_pages, limits)
            pages = tuple(_pages(pdf, span, media.name, with_pictures, limits, deadline))
    except (InvalidMedia, InvalidRequest):
        raise
    except Exception as error:
        # PDFium's own errors, and whatever a damaged file makes its wrapper raise.
        if "password" in str(error).lower():
            raise InvalidMedia(f"{media.name} needs a password: save it without one") from None
        raise decoding_failed(media.name, "PDF document", error) from None
    finally:
        _pdfium_at_work.release()
    return Document(media.name, "pdf", "\n".join(p.text for p in pages if p.text), pages, num_pages)


def _pdfium(name: str) -> Any:
    try:
        return importlib.import_module("pypdfium2")
    except ImportError:
        raise MissingExtra(
            f"{name} is a PDF document: reading it needs pypdfium2, from the checkout: "
            "pip install '.[serve]'; or give its pages as pictures or as text"
        ) from None


def _checked_pages(name: str, wanted: tuple[int, int] | None, num_pages: int, limits: MediaLimits) -> range:
    if num_pages < 1:
        raise InvalidMedia(f"{name} has no pages: save it again")
    first, last = wanted or (1, num_pages)
    if not 1 <= first <= last <= num_pages:
        raise InvalidRequest(f"pages {_span((first, last))} of {name}: it has pages 1 to {num_pages}")
    if last - first + 1 > limits.max_pages:
        raise InvalidMedia(
            f"{name} has {last - first + 1} pages to read, over the limit of {limits.max_pages}: choose "
            f"some, such as pages '{first}-{first + limits.max_pages - 1}'"
        )
    return range(first, last + 1)


def _pages(
    pdf: Any, numbers: range, name: str, with_pictures: bool, limits: MediaLimits, deadline: float
) -> Iterator[Page]:
    left = limits.max_document_chars
    for number in numbers:
        if time.monotonic() > deadline:
            raise InvalidMedia(
                f"{name} takes longer than {limits.max_decode_s:g} s to read: choose fewer pages, or print "
                "it anew"
            )
        with closing(pdf[number - 1]) as page:
            text = _page_text(page, name, left, limits)
            left -= len(text)
            yield Page(number, _picture(page, name, number) if with_pictures else None, text)


def _page_text(page: Any, name: str, left: int, limits: MediaLimits) -> str:
    with closing(page.get_textpage()) as content:
        if content.count_chars() > left:
            raise _too_long(name, limits)
        return _clean(content.get_text_bounded())


def _picture(page: Any, name: str, number: int) -> Image.Image:
    """Render a page, PAGE_SIDE_PX long."""
    width, height = page.get_size()
    if not (math.isfinite(width) and math.isfinite(height) and width > 0 and height > 0):
        raise InvalidMedia(f"page {number} of {name} has no size: print it anew")
    scale = min((PAGE_SIDE_PX - 0.01) / max(width, height), _MOST_SCALE)  # sides are rounded up
    with closing(page.render(scale=scale, fill_color=(255, 255, 255, 255), limit_image_cache=True)) as bitmap:
        picture: Image.Image = bitmap.to_pil().convert("RGB")  # a copy: the bitmap's memory is PDFium's
        return picture


def _read_text(media: OpenedMedia, limits: MediaLimits) -> Document:
    longest = _MARKUP_FACTOR * limits.max_document_chars
    content = media.stream.read(longest + 1)
    if len(content) > longest:
        raise _too_long(media.name, limits)
    text = _decoded(media.name, content)
    kind = "html" if is_html(text) else "text"
    text = html_text(text) if kind == "html" else text
    if len(text) > limits.max_document_chars:
        raise _too_long(media.name, limits)
    text = _clean(text)
    if not text:
        raise InvalidMedia(f"{media.name} holds no text: give one that does")
    return Document(media.name, kind, text)


def _decoded(name: str, content: bytes) -> str:
    mark = next((mark for mark in _MARKS if content.startswith(mark)), None)
    codec = _MARKS[mark] if mark else "utf-8"
    try:
        text = content.decode(codec)
    except UnicodeDecodeError as error:
        if declared_charset(content) not in _WESTERN:
            raise InvalidMedia(
                f"{name} is neither a PDF document nor {codec.upper()} text (byte {error.start:,} does not "
                "fit): save it as UTF-8 or as PDF"
            ) from None
        text = content.decode("cp1252", errors="replace")
    if _NO_TEXT.search(text):
        raise InvalidMedia(f"{name} holds control characters, so it is no text: save it as UTF-8 or as PDF")
    return text


def _clean(text: str) -> str:
    """One kind of line break, words whole that were parted at the end of a line, nothing unprintable."""
    whole = _SOFT_HYPHEN.sub("", text).replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n")
    return _UNPRINTABLE.sub("", whole).strip("\n\ufeff").rstrip()


def _too_long(name: str, limits: MediaLimits) -> InvalidMedia:
    return InvalidMedia(
        f"{name} is longer than the limit of {limits.max_document_chars:,} characters: give a part of it"
    )


def _span(pages: tuple[int, int]) -> str:
    return f"{pages[0]}-{pages[1]}"
