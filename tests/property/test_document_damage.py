"""Damage of any kind to a document or a video gives a value or `InvalidMedia`, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4.errors import InvalidMedia
from phi4.processing.documents import load_document
from phi4.processing.video import load_video
from phi4.testing.files import pdf_bytes, video_bytes
from phi4.testing.media import chirp

LEAKS = ("0x", "<", "BytesIO", "Traceback")
PAGE = (
    b"<!doctype html><title>Hours</title><table><tr><td>Mon<td>9</tr></table><script>x</script><p>a &amp; b"
)
MAKERS: dict[str, Callable[[], bytes]] = {
    "page.html": lambda: PAGE,
    "notes.txt": lambda: "Grüße aus Köln\n你好\n".encode(),
    "wide.txt": lambda: "Grüße".encode("utf-16"),
    "plan.pdf": lambda: pdf_bytes(["one (1)", "two"]),
    "film.mp4": lambda: video_bytes(12, samples=chirp(0.5)),
    "film.webm": lambda: video_bytes(8, format_id="webm", codec="libvpx-vp9"),
}
NEEDS = {"pdf": "pypdfium2", "mp4": "av", "webm": "av"}


@st.composite
def damage(draw: st.DrawFn, content: bytes) -> bytes:
    """Cut, flipped bits, a piece overwritten, or a piece left out."""
    place = st.integers(0, len(content) - 1)
    kind = draw(st.sampled_from(("cut", "flip", "fill", "drop")))
    start = draw(place)
    if kind == "cut":
        return content[:start]
    if kind == "drop":
        return content[:start] + content[start + draw(st.integers(1, 40)) :]
    damaged = bytearray(content)
    if kind == "fill":
        damaged[start : start + 8] = draw(st.binary(min_size=8, max_size=8))
        return bytes(damaged)
    for _ in range(draw(st.integers(1, 4))):
        damaged[draw(place)] ^= 1 << draw(st.integers(0, 7))
    return bytes(damaged)


@cache
def whole(name: str) -> bytes:
    return MAKERS[name]()


def load(name: str, content: bytes) -> Any:
    return (load_video if name.startswith("film") else load_document)(content)


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=60)
@given(data=st.data())
def test_damaged_file_gives_content_or_invalid_media(name: str, data: st.DataObject) -> None:
    needed = NEEDS.get(name.rpartition(".")[2])
    if needed:
        pytest.importorskip(needed)
    try:
        found = load(name, data.draw(damage(whole(name))))
    except InvalidMedia as error:
        assert not any(leak in str(error) for leak in LEAKS)
        return
    if name.startswith("film"):
        assert 1 <= len(found.frames) <= 16
    else:
        assert not any(c < " " and c not in "\n\t" for c in found.text)


@settings(max_examples=200)
@given(content=st.binary(max_size=300))
def test_arbitrary_bytes_are_a_text_or_refused(content: bytes) -> None:
    try:
        document = load_document(content)
    except InvalidMedia:
        return
    assert document.kind in ("text", "html") and document.text
