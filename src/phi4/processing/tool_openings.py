"""Where calls may begin in an answer: the markers of every dialect, and text that may still become one.

Bare JSON and fences count at the start of a line only: behind a newline that is examined together with them,
or where the parser knows that it stands at a line start.
"""

from __future__ import annotations

import re

from phi4.processing.tool_json import CALL_BEGIN, CALL_END

FUNCTOOLS = "functools["
SPELLED = "<|tool_call|>"
FENCE = "```"
CLOSERS = {CALL_BEGIN: CALL_END, SPELLED: "<|/tool_call|>", FENCE: FENCE}
"""Opening -> what ends it; openings that nothing ends are missing."""
_BRACKET_OR_FENCE = r"[ \t]*(?P<open>[\[{]|```[A-Za-z_]{0,16}\r?\n)"
_MARKS = f"[{CALL_BEGIN}{CALL_END}]"
_NATIVE = re.compile(f"(?P<open>{_MARKS})")
_OPENING = re.compile(_MARKS + r"|functools\[|<\|tool_call\|>|\n" + _BRACKET_OR_FENCE)
_LINE = re.compile(_BRACKET_OR_FENCE)
_PARTIAL_FENCE = re.compile(r"`{1,2}|```[A-Za-z_]{0,16}\r?")
_LONGEST_PARTIAL = 24


def find_opening(text: str, start: int, blank: bool, dialects: bool) -> tuple[str, int] | None:
    """The first opening, or end of a native call, from `start` on.

    Args:
        text: Of the answer.
        start: Index.
        blank: Only white space stands before `start` on its line.
        dialects: False = only the model's own tokens count.

    Returns:
        The opening and the index behind it; None = there is none.
    """
    if dialects:
        match = _LINE.match(text, start) if blank else None
        match = match or _OPENING.search(text, start)
    else:
        match = _NATIVE.search(text, start)
    return None if match is None else (match["open"] or match[0], match.end())


def partial_opening(text: str, start: int, blank: bool) -> int:
    """Index from which `text` may be the beginning of an opening that continues in the next piece."""
    tail_start = max(start, len(text) - _LONGEST_PARTIAL)
    for begin in range(tail_start, len(text)):
        tail = text[begin:]
        if FUNCTOOLS.startswith(tail) or SPELLED.startswith(tail):
            return begin
        at_line_start = tail[0] == "`" and ends_blank(text[start:begin], blank)
        if at_line_start and _PARTIAL_FENCE.fullmatch(tail):
            return begin
    return len(text)


def ends_blank(text: str, blank_before: bool) -> bool:
    """Is the last line of `text` only spaces and tabs so far?"""
    newline = text.rfind("\n")
    return not text[newline + 1 :].strip(" \t") and (newline >= 0 or blank_before)
