"""Documents: PDF pages with picture and text, pages of the web, text; everything else is refused."""

from __future__ import annotations

import base64
import importlib.util
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phi4.errors import InvalidMedia, InvalidRequest, MissingExtra
from phi4.processing import documents
from phi4.processing.documents import PAGE_SIDE_PX, load_document, parse_pages
from phi4.processing.media import DEFAULT_LIMITS
from phi4.testing.files import pdf_bytes
from phi4.testing.media import friendly_audio, friendly_images

HAS_PDFIUM = importlib.util.find_spec("pypdfium2") is not None
needs_pdfium = pytest.mark.skipif(not HAS_PDFIUM, reason="pypdfium2 is not installed")
THREE = pdf_bytes(["Opening hours\nnine to five", "Second (2) page", "Third page"])


@needs_pdfium
def test_pages_of_a_pdf_have_their_picture_and_their_text() -> None:
    document = load_document(THREE)
    assert (document.kind, document.num_pages) == ("pdf", 3)
    assert [page.number for page in document.pages] == [1, 2, 3]
    assert document.pages[0].text == "Opening hours\nnine to five"
    assert document.pages[1].text == "Second (2) page"
    assert document.text == "Opening hours\nnine to five\nSecond (2) page\nThird page"
    for page in document.pages:
        assert page.picture is not None and page.picture.mode == "RGB"
        assert max(page.picture.size) == PAGE_SIDE_PX and page.picture.size[1] > page.picture.size[0]
        pixels = np.asarray(page.picture)
        assert pixels[0, 0].tolist() == [255, 255, 255] and (pixels < 64).any()
        assert (pixels[200:] > 250).all()  # what is written stands at the top


@needs_pdfium
def test_what_was_filled_into_a_form_is_seen() -> None:
    for filled_in in (False, True):
        (page,) = load_document(pdf_bytes(["Name:"], filled_in=filled_in)).pages
        assert page.picture is not None
        corner = np.asarray(page.picture)[-60:-10, 10:120]
        assert (corner < 64).all() == filled_in and (corner > 250).all() != filled_in


@needs_pdfium
def test_chosen_pages_alone_are_read() -> None:
    document = load_document(THREE, pages=(2, 3))
    assert [page.number for page in document.pages] == [2, 3] and document.num_pages == 3
    for pages in ((0, 1), (2, 4), (3, 2)):
        with pytest.raises(InvalidRequest, match="it has pages 1 to 3"):
            load_document(THREE, pages=pages)


@needs_pdfium
def test_without_pictures_nothing_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_picture", lambda *_: pytest.fail("rendered"))
    assert [page.picture for page in load_document(THREE, with_pictures=False).pages] == [None] * 3


@needs_pdfium
def test_every_source_of_a_document_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "plan.bin"
    path.write_bytes(THREE)
    url = "data:application/pdf;base64," + base64.b64encode(THREE).decode()
    texts = {load_document(source, with_pictures=False).text for source in (THREE, path, str(path), url)}
    assert len(texts) == 1
    with pytest.raises(InvalidMedia, match="paths are not opened here"):
        load_document(path, allow_files=False)


@needs_pdfium
def test_small_and_long_pages_keep_to_the_limits_of_pictures() -> None:
    (tiny,) = load_document(pdf_bytes(["x"], (60, 90))).pages
    assert tiny.picture is not None and max(tiny.picture.size) == 360
    (banner,) = load_document(pdf_bytes(["x"], (14000, 70))).pages
    assert banner.picture is not None and banner.picture.size[0] == PAGE_SIDE_PX


@needs_pdfium
def test_limits_on_pages_characters_bytes_and_time() -> None:
    with pytest.raises(InvalidMedia, match=r"has 3 pages to read, over the limit of 2: choose .* '1-2'"):
        load_document(THREE, limits=replace(DEFAULT_LIMITS, max_pages=2))
    assert len(load_document(THREE, pages=(2, 3), limits=replace(DEFAULT_LIMITS, max_pages=2)).pages) == 2
    with pytest.raises(InvalidMedia, match="longer than the limit of 30 characters"):
        load_document(THREE, limits=replace(DEFAULT_LIMITS, max_document_chars=30))
    with pytest.raises(InvalidMedia, match="over the limit of 100"):
        load_document(THREE, limits=replace(DEFAULT_LIMITS, max_document_bytes=100))
    with pytest.raises(InvalidMedia, match="takes longer than 0 s"):
        load_document(THREE, limits=replace(DEFAULT_LIMITS, max_decode_s=0.0))


@needs_pdfium
@pytest.mark.parametrize("cut", [9, 60, 300, len(THREE) // 2])
def test_damaged_pdf_is_refused_or_read_without_a_crash(cut: int) -> None:
    with pytest.raises(InvalidMedia, match=r"not a whole, undamaged PDF document|has no pages") as caught:
        load_document(THREE[:cut])
    assert "0x" not in str(caught.value)


@needs_pdfium
def test_locked_pdf_asks_for_one_without_a_password() -> None:
    lock = (
        f"/Encrypt << /Filter /Standard /V 1 /R 2 /O <{'11' * 32}> /U <{'22' * 32}> /P -4 >> /ID [<33> <33>]"
    )
    with pytest.raises(InvalidMedia, match="needs a password: save it without one"):
        load_document(pdf_bytes(["secret"], trailer=lock))


@needs_pdfium
def test_documents_are_read_in_turn_by_several_threads() -> None:
    found: list[str] = []
    readers = [threading.Thread(target=lambda: found.append(load_document(THREE).text)) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert len(found) == 4 and len(set(found)) == 1


@needs_pdfium
def test_a_document_that_waits_too_long_for_others_is_told() -> None:
    with documents._pdfium_at_work, pytest.raises(InvalidMedia, match="had to wait too long"):
        load_document(THREE, limits=replace(DEFAULT_LIMITS, max_decode_s=0.05))


def test_without_pdfium_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    with pytest.raises(MissingExtra, match=r"pypdfium2.*pip install '\.\[serve\]'"):
        load_document(THREE)
    assert load_document(b"plain text").text == "plain text"


@pytest.mark.parametrize(
    ("content", "kind", "text"),
    [
        (b"one\r\ntwo\rthree\n", "text", "one\ntwo\nthree"),
        ("Grüße, 你好 😀".encode(), "text", "Grüße, 你好 😀"),
        (b"\xef\xbb\xbfmarked", "text", "marked"),
        ("wide ü".encode("utf-16"), "text", "wide ü"),
        ("wide ü".encode("utf-16-be"), None, ""),
        (b"\xfe\xff" + "wide ü".encode("utf-16-be"), "text", "wide ü"),
        (b"BM is how this note begins", "text", "BM is how this note begins"),
        (b"def f():\n\treturn 1\f\n", "text", "def f():\n\treturn 1"),
        (b"    indented", "text", "    indented"),
        (b"red \x1b[31mwords\x1b[0m", "text", "red [31mwords[0m"),
        (b"<!doctype html><p>a</p><p>b</p>", "html", "a\nb"),
        ("<html><meta charset='iso-8859-1'>gr\xfc\xdfe".encode("latin-1"), "html", "grüße"),
        ("gr\xfc\xdfe".encode("latin-1"), None, ""),
        (b"a\x00b" * 50, None, ""),
        (b"\n\n  \n", None, ""),
    ],
)
def test_text_is_read_strictly(content: bytes, kind: str | None, text: str) -> None:
    if kind is None:
        with pytest.raises(
            InvalidMedia, match=r"neither a PDF document nor UTF-8|no text|control characters"
        ):
            load_document(content)
        return
    document = load_document(content)
    assert (document.kind, document.text, document.pages) == (kind, text, ())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (friendly_images()["rgb.png"], "is a PNG picture: .*; give it as a picture"),
        (friendly_audio()["stereo.flac"], "is a FLAC recording: .*; give it as a recording"),
        (b"\0\0\0\x20ftypisom" + bytes(60), "is an MP4.*; give it as a video"),
        (b"PK\x03\x04" + bytes(60), "is a ZIP archive: .*; convert it to PDF or to text"),
        (b"", "is empty"),
    ],
)
def test_other_content_is_named_with_what_to_do(content: bytes, words: str) -> None:
    with pytest.raises(InvalidMedia, match=words):
        load_document(content)


def test_pages_of_a_text_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="it is no PDF, so leave pages out"):
        load_document(b"text", pages=(1, 2))


def test_long_texts_are_refused_before_they_are_decoded() -> None:
    limits = replace(DEFAULT_LIMITS, max_document_chars=10)
    assert load_document(b"0123456789", limits=limits).text == "0123456789"
    for content in (b"0123456789a", b"x" * 161, b"<html>" + b"<p>" * 100):
        with pytest.raises(InvalidMedia, match=r"longer than the limit of 10 characters|holds no text"):
            load_document(content, limits=limits)
    with pytest.raises(InvalidMedia, match="longer than the limit of 10"):
        load_document(b"\xff" * 161, limits=limits)  # no word of its encoding


@pytest.mark.parametrize(
    ("value", "pages"),
    [("2-5", (2, 5)), (" 3 - 3 ", (3, 3)), ("7", (7, 7)), (7, (7, 7)), ([2, 5], (2, 5)), ((1, 1), (1, 1))],
)
def test_pages_are_read_in_every_form(value: object, pages: tuple[int, int]) -> None:
    assert parse_pages(value) == pages


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0",
        "5-2",
        "1-2-3",
        "-3",
        "a",
        "1,2",
        "１",
        "9" * 30,
        0,
        -1,
        True,
        1.0,
        [1],
        [1, "2"],
        [2, 1],
        None,
    ],
)
def test_other_pages_are_refused(value: object) -> None:
    with pytest.raises(InvalidRequest, match=r"file.pages is .*give pages such as '2-5'"):
        parse_pages(value, "file.pages")
