"""Web pages become lines of text; scripts and broken ends disappear; hostile pages cost linear time."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi4.processing.html_text import declared_charset, html_text, is_html


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<h1>Hours</h1><p>Nine &ndash; five</p>", "Hours\nNine – five"),
        ("<title>T</title><body>a<br>b<br/>c</body>", "T\na\nb\nc"),
        ("<p>one\n   two\t<b>three</b> four</p>", "one two three four"),
        ("a<b>b</b>c", "abc"),
        ("<ul><li>one<li>two</ul>", "- one\n- two"),
        ("<table><tr><th>day<th>open</tr><tr><td>Mon</td> <td>9</td></tr></table>", "day | open\nMon | 9"),
        ("<pre>def f():\n    return 1\n</pre>after", "def f():\n    return 1\nafter"),
        ("<p>see<img src='x' alt='a red &amp; blue door'>there", "see [picture: a red & blue door] there"),
        ("<img alt=door>", "[picture: door]"),
        ("<img src=x><img alt=''>", ""),
        ("a<script>if (a < b) say('<p>no</p>')</script>b", "ab"),
        ("a<STYLE>p {}</style >b<script/>c", "abc"),
        ("a<!-- <p>no</p> -->b<!-->c<!doctype html>d<?php no ?>e</>f", "abcdef"),
        ("2 < 3 and 4 > 3 &lt;b&gt; &#65;&#x42;", "2 < 3 and 4 > 3 <b> AB"),
        ("<p title='a > b' data-x=\"<p>\">in</p>", "in"),
        ("&nbsp;a&nbsp;&nbsp;b&nbsp;", "a b"),
        ("&#99999999999;&unknown;", "\ufffd&unknown;"),
        ("", ""),
        ("<p>  </p><hr><li> </li>", ""),
    ],
)
def test_pages_read_like_text(page: str, text: str) -> None:
    assert html_text(page).strip() == text


@pytest.mark.parametrize(
    "page", ["a<!-- b", "a<p title='b>c", "a<script>b", "a<!doc", "a<p", "a<script>b</script c"]
)
def test_what_never_ends_ends_the_page(page: str) -> None:
    assert html_text(page) == "a"


@pytest.mark.parametrize(
    "bit",
    [
        "<",
        "<a ",
        "<!--",
        "<!",
        "</",
        "<a x='",
        "<script>",
        "<script></script ",
        "<a x=' alt=\"",
        "&#",
        "&a",
        "a<b>",
        "<pre>\n",
        "<td>",
        "<li>",
        "=   ",
        "\n \t",
        "</pre><pre>",
    ],
)
def test_time_is_linear_in_the_page(bit: str) -> None:
    def seconds(count: int) -> float:
        start = time.process_time()
        html_text("<p>" + bit * count)
        return time.process_time() - start

    seconds(1000)
    few, many = (min(seconds(count) for _ in range(3)) for count in (20_000, 80_000))
    assert many < 12 * few + 0.05


def test_numbers_of_a_million_digits_are_no_character() -> None:
    assert html_text("a&#" + "9" * 1_000_000 + ";b") == "a\ufffdb"


@given(st.text(st.sampled_from("<>/!-=\"' ab&;#x1\n"), max_size=60))
def test_any_page_gives_text_without_control_characters(page: str) -> None:
    assert not any(unicodedata.category(c) == "Cc" and c != "\n" for c in html_text(page))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<!DOCTYPE HTML><p>", True),
        ("\n  <html lang='de'>", True),
        ("\ufeff<html>", True),
        ("<?xml version='1.0'?>\n<html xmlns='x'>", True),
        ("<!-- saved --><html>", True),
        ("<?xml version='1.0'?><rss>", False),
        ("<div>a part of a page</div>", False),
        ("print('<html>')", False),
        ("", False),
    ],
)
def test_pages_are_told_by_their_first_element(text: str, answer: bool) -> None:
    assert is_html(text) is answer


def test_the_encoding_a_page_names_is_found() -> None:
    assert declared_charset(b'<html><meta charset="ISO-8859-1">') == "iso-8859-1"
    assert declared_charset(b"<meta content='text/html; charset=windows-1252'>") == "windows-1252"
    assert declared_charset(b"<html>" + b" " * 2000 + b"charset=utf-8") == ""
