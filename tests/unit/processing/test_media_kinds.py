"""Videos and documents come through the one opener too, each kind with its own limit and its own words."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from phi4.errors import InvalidMedia
from phi4.processing.media import DEFAULT_LIMITS, MediaKind, open_media
from phi4.processing.sniff import sniff_document

MP4 = b"\0\0\0\x20ftypisom" + bytes(100)
PDF = b"%PDF-1.7\n" + bytes(100)


def data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"%PDF-1.7\n1 0 obj", "PDF"),
        (b"BM and its history", "TEXT"),
        (b"FORM 1040", "TEXT"),
        (b"ID3 is a tag", "TEXT"),
        (b"\xff\xfeB\0M\0", "TEXT"),
        (b"\xfe\xff\0B\0M", "TEXT"),
        (b"gr\xfc\xdfe in Latin-1", "TEXT"),
        (b"BM\x36\x00\x0c\x00\x00\x00\x00\x00", "BMP"),
        (b"PK\x03\x04\x14\0\0\0", "ZIP"),
        (b"\xff\xfb\x90\x64\0\0\0\0", "MP3"),
        (MP4, "MP4"),
    ],
)
def test_documents_are_told_by_their_words_first(head: bytes, found: str) -> None:
    assert sniff_document(head[:64]).id == found


@pytest.mark.parametrize(
    ("kind", "content", "declared"),
    [
        ("document", PDF, "application/pdf"),
        ("document", b"text", "text/plain;charset=utf-8"),
        ("document", b"{}", "application/json"),
        ("document", b"text", "application/octet-stream"),
        ("document", b"text", ""),
        ("video", MP4, "video/mp4"),
        ("video", MP4, "application/octet-stream"),
    ],
)
def test_data_urls_of_each_kind_open(kind: MediaKind, content: bytes, declared: str) -> None:
    pytest.importorskip("av") if kind == "video" else None
    with open_media(data_url(declared, content), kind, allow_files=False) as media:
        assert media.stream.read() == content
        assert media.name == f"{kind} ({len(content)} bytes)"


@pytest.mark.parametrize(
    ("kind", "declared"),
    [("document", "image/png"), ("video", "image/png"), ("video", "audio/wav"), ("image", "text/plain")],
)
def test_data_urls_that_declare_another_kind_are_refused(kind: MediaKind, declared: str) -> None:
    with pytest.raises(InvalidMedia, match=f"declares '{declared}', not "):
        open_media(data_url(declared, b"x" * 30), kind)


@pytest.mark.parametrize(
    ("kind", "field"), [("video", "max_video_bytes"), ("document", "max_document_bytes")]
)
def test_each_kind_has_its_own_limit_which_holds_before_base64_is_decoded(
    kind: MediaKind, field: str
) -> None:
    limits = replace(DEFAULT_LIMITS, **{field: 50})  # type: ignore[arg-type]
    for source in (b"x" * 51, "data:;base64," + "#" * 80):  # which is no base64
        with pytest.raises(InvalidMedia, match="over the limit of 50"):
            open_media(source, kind, limits=limits)
    assert {DEFAULT_LIMITS.max_bytes(k) for k in ("image", "audio", "video", "document")} == {
        2**26, 2**30, 2**28, 2**25,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["video", "document"])
def test_addresses_of_the_network_stay_closed(kind: MediaKind) -> None:
    with pytest.raises(InvalidMedia, match="fetching is not allowed here"):
        open_media("https://example.org/a", kind)
    with pytest.raises(InvalidMedia, match="private network"):
        open_media("http://127.0.0.1:9/a", kind, allow_remote=True)
