"""The readable text of a web page, in one pass over it, with the standard library.

    html_text("<h1>Hours</h1><p>Nine &amp; a half</p>")      # "Hours\nNine & a half"

Tags become line breaks where a browser would break lines; scripts, styles and comments disappear; pictures
leave their description. Time is linear in the page whatever stands in it: every construct that is not closed
ends the page, as it does in the HTML standard. Nothing is fetched and no link is followed.

Left out on purpose: style sheets, so text that a browser would hide is read.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_TAG = re.compile(r"</?([A-Za-z][^\s/>]*)")
_QUOTE_OR_END = re.compile(r"=\s*([\"'])|>")
_ALT = re.compile(r"\salt\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))", re.IGNORECASE)
_LONG_NUMBER = re.compile(r"&#[xX]?[0-9a-fA-F]{8,};?")
_SPACES = re.compile(r"[ \t\r\n\f\v\xa0]+")
_RAW = frozenset({"script", "style", "template", "noscript", "iframe", "object", "svg", "math", "select"})
"""Elements whose content is not shown as text."""
_BREAKS = frozenset(
    {"address", "article", "aside", "blockquote", "body", "br", "caption", "center", "dd", "details"}
    | {"dialog", "dir", "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2"}
    | {"h3", "h4", "h5", "h6", "head", "header", "hr", "html", "legend", "li", "main", "menu", "nav", "ol"}
    | {"option", "p", "pre", "section", "summary", "table", "tbody", "tfoot", "thead", "title", "tr", "ul"}
)
_CELLS = frozenset({"td", "th"})
_PAGE_BEGINNINGS = ("<!doctype html", "<html")
_HEAD_CHARS = 1024
_CHARSET = re.compile(rb"charset\s*=\s*[\"']?\s*([A-Za-z0-9_-]+)", re.IGNORECASE)


def is_html(text: str) -> bool:
    """Whether a text is a web page: its first element is `html`, or its type says so."""
    head = text[:_HEAD_CHARS].lower().lstrip("\ufeff \t\r\n")
    return head.startswith(_PAGE_BEGINNINGS) or (head.startswith(("<?xml", "<!--")) and "<html" in head)


def declared_charset(content: bytes) -> str:
    """The encoding a page names near its beginning, in lower case; empty = none."""
    found = _CHARSET.search(content[:_HEAD_CHARS])
    return found[1].decode("ascii").lower() if found else ""


def html_text(page: str) -> str:
    """Text of a page: a line for each block, items with a dash, cells with bars between, no empty lines.

    Args:
        page: The page as text.
    """
    lines = _Lines()
    for kind, value in _tokens(page):
        if kind == "text":
            lines.say(value)
        elif kind == "cell":
            lines.cell()
        else:
            lines.end(value)
    return lines.text()


@dataclass
class _Lines:
    """Lines made of pieces that are joined once: a line of a million pieces costs no more than they do."""

    done: list[str] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    kept: int = 0
    """Depth of `pre`, inside which white space is kept."""

    def say(self, text: str) -> None:
        """Add text; white space counts as one space unless it is kept."""
        if self.kept:
            first, *others = text.replace("\r\n", "\n").split("\n")
            self._add(first)
            for other in others:
                self._finish()
                self._add(other)
            return
        words = _SPACES.sub(" ", text)
        self._add(words.lstrip(" ") if not self.pieces or self.pieces[-1].endswith(" ") else words)

    def end(self, element: str) -> None:
        """End the line, as this element does; a "/" before its name is its end tag."""
        self._finish()
        if element == "li":
            self._add("- ")
        self.kept = max(0, self.kept + {"pre": 1, "/pre": -1}.get(element, 0))

    def cell(self) -> None:
        """Begin another cell of a table."""
        if self.pieces:
            self._add("| " if self.pieces[-1].endswith(" ") else " | ")

    def text(self) -> str:
        """All lines that say something."""
        self._finish()
        return "\n".join(line for line in self.done if line.strip(" -|"))

    def _add(self, piece: str) -> None:
        if piece:
            self.pieces.append(piece)

    def _finish(self) -> None:
        self.done.append("".join(self.pieces).rstrip())
        self.pieces.clear()


def _tokens(page: str) -> Iterator[tuple[str, str]]:
    """Text, line breaks (with the element's name, "/" before it at its end) and table cells, in order."""
    at = 0
    while at < len(page):
        start = page.find("<", at)
        if start != at:
            yield "text", _unescaped(page[at : start if start >= 0 else len(page)])
        if start < 0:
            return
        tag = _TAG.match(page, start)
        at = _end_of_tag(page, tag.end()) if tag else _end_of_other(page, start)
        if at < 0:
            return
        if tag is None:
            if at == start + 1:
                yield "text", "<"
            continue
        name, is_end = tag[1].lower(), page[start + 1] == "/"
        if name in _RAW and not is_end and page[at - 2] != "/":
            at = _end_of_raw(page, name, at)
            if at < 0:
                return
        elif name in _BREAKS:
            yield "break", f"/{name}" if is_end else name
        elif name in _CELLS and not is_end:
            yield "cell", name
        elif name == "img":
            yield "text", _description(page[start:at])


def _end_of_tag(page: str, at: int) -> int:
    """Index behind the `>` that ends a tag, quoted values skipped; -1 = it never ends."""
    while found := _QUOTE_OR_END.search(page, at):
        if found[1] is None:
            return found.end()
        at = page.find(found[1], found.end()) + 1
        if at == 0:
            return -1
    return -1


def _end_of_other(page: str, start: int) -> int:
    """Index behind a comment, a declaration or an instruction; behind a lone `<`; -1 = it never ends."""
    if page.startswith("<!--", start):
        end = page.find("-->", start + 2)  # `<!-->` is a whole comment
        return end + 3 if end >= 0 else -1
    if page.startswith(("<!", "<?", "</"), start):
        end = page.find(">", start)
        return end + 1 if end >= 0 else -1
    return start + 1


def _end_of_raw(page: str, name: str, at: int) -> int:
    """Index behind the end tag of an element whose content is skipped; -1 = it never ends."""
    found = re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE).search(page, at)
    return page.find(">", found.end()) + 1 or -1 if found else -1


def _description(tag: str) -> str:
    found = _ALT.search(tag)
    words = _unescaped(next((group for group in found.groups() if group), "")) if found else ""
    return f" [picture: {_SPACES.sub(' ', words).strip()}] " if words.strip() else ""


def _unescaped(text: str) -> str:
    # Python refuses to read numbers of thousands of digits, and no character has more than seven.
    return html.unescape(_LONG_NUMBER.sub("\ufffd", text)) if "&" in text else text
