"""Tool calls in the model's answer, found while it streams and in every spelling seen in use.

Understood: `functools[...]`; `<|tool_call|>...<|/tool_call|>`, the end marker may be missing; a bare
JSON list or object at the start of a line, also inside a code fence. Each call is
`{name, arguments}` (or `parameters`; arguments may be JSON text; `{"function": {...}}` wrappers too).
Whatever does not turn out to be calls, broken JSON included, comes out as ordinary text.

The parser moves over the answer one character at a time and never goes back: work is linear, and how
the text was cut into pieces cannot matter. Left out on purpose: checking arguments against schemas.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from phi4.processing.tool_json import JSON_SPACE, JsonScanner, read_calls
from phi4.processing.tool_stream import CallFollower, ToolCallDelta, unsent
from phi4.types import ToolCall

_FUNCTOOLS = "functools["
_CALL = "<|tool_call|>"
_CALL_END = "<|/tool_call|>"
_FENCE = "```"
# Bare JSON and fences count at the start of a line only: behind a newline that is examined together with
# them, or (`_LINE`) where the parser knows that it stands at a line start.
_BRACKET_OR_FENCE = r"[ \t]*(?P<open>[\[{]|```[A-Za-z_]{0,16}\r?\n)"
_OPENING = re.compile(r"functools\[|<\|tool_call\|>|\n" + _BRACKET_OR_FENCE)
_LINE = re.compile(_BRACKET_OR_FENCE)
_PARTIAL_FENCE = re.compile(r"`{1,2}|```[A-Za-z_]{0,16}\r?")
_LONGEST_PARTIAL = 24


@dataclass(frozen=True)
class TextDelta:
    """Ordinary text of the answer."""

    text: str


@dataclass(frozen=True)
class CallsFinished:
    """Calls that are complete, in order."""

    calls: tuple[ToolCall, ...]


ParserEvent = TextDelta | ToolCallDelta | CallsFinished


@dataclass(frozen=True)
class ParsedAnswer:
    """A whole answer taken apart: the text without markup of calls, and the calls."""

    text: str
    calls: tuple[ToolCall, ...]


def parse_tool_calls(text: str, tool_names: Collection[str] | None = None) -> ParsedAnswer:
    """Take a whole answer apart; see `ToolCallParser`."""
    parser = ToolCallParser(tool_names)
    return join_events([*parser.push(text), *parser.flush()])


def join_events(events: Collection[ParserEvent]) -> ParsedAnswer:
    """Join the events of one answer."""
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    calls = tuple(call for event in events if isinstance(event, CallsFinished) for call in event.calls)
    return ParsedAnswer(text, calls)


class ToolCallParser:
    """Streaming parser for one answer: `push` pieces of text, `flush` at the end.

    Text that may still become a call is held back until that is decided.
    """

    def __init__(
        self, tool_names: Collection[str] | None = None, *, stream: bool = False, offered_only: bool = False
    ) -> None:
        """Start an empty answer.

        Args:
            tool_names: Functions that were offered. Bare JSON counts as a call only when it names one of
                them; None = not known, any name counts. Marked calls always count, unless `offered_only`.
            stream: Also give out calls as they are written, as `ToolCallDelta`s. A call that is cut off by
                the end of the answer is then neither text nor finished; one that turns out broken is text,
                too. Bare JSON may be no call until its end: it comes whole.
            offered_only: Marked calls count for `tool_names` only, too; a list that names another function is
                text.
        """
        self._names = None if tool_names is None else frozenset(tool_names)
        self._marked_names = self._names if offered_only else None
        self._events: list[ParserEvent] = []
        self._text: list[str] = []  # decided text that is not yet an event
        self._num_calls = 0
        self._state = self._in_text
        self._wrapper = ""  # what the calls stand in: _CALL, _FENCE, _FUNCTOOLS or nothing
        self._partial = ""  # short text that may begin an opening or a closing marker
        self._blank = True  # only white space so far on the line on which `_partial` starts
        self._held: list[str] = []  # text since the opening, shown again if this is no call
        self._stream = stream
        self._follower: CallFollower | None = None  # of the marked calls that are being written
        self._json = JsonScanner()

    def push(self, text: str) -> list[ParserEvent]:
        """Add a piece of the answer and return what is decided now."""
        if self._partial:
            text, self._partial = self._partial + text, ""
        position = 0
        while position < len(text):
            position = self._state(text, position)
        return self._take_events()

    def flush(self) -> list[ParserEvent]:
        """End the answer; what never became a call comes out as text, unless it was given out in pieces."""
        if self._follower is None or not self._follower.sent:
            self._emit("".join(self._held) + self._partial)
        self._held, self._partial, self._follower = [], "", None
        self._state, self._wrapper, self._blank = self._in_text, "", True
        return self._take_events()

    def _take_events(self) -> list[ParserEvent]:
        self._end_text()
        events, self._events = self._events, []
        return events

    def _emit(self, text: str) -> None:
        if text:
            self._text.append(text)

    def _end_text(self) -> None:
        """Make one event of the text since the last calls."""
        if self._text:
            self._events.append(TextDelta("".join(self._text)))
            self._text = []

    def _in_text(self, text: str, start: int) -> int:
        match = _LINE.match(text, start) if self._blank else None
        match = match or _OPENING.search(text, start)
        if match is None:
            held = _partial_opening(text, start, self._blank)
            self._emit_line_aware(text[start:held])
            self._partial = text[held:]
            return len(text)
        opening = match["open"] or match[0]
        self._wrapper = ""
        begin = match.end() - len(opening)
        self._emit_line_aware(text[start:begin])
        if opening[0] in "[{":
            return self._start_json(begin)
        self._held = [opening]
        self._wrapper = _FENCE if opening.startswith(_FENCE) else opening
        if opening == _FUNCTOOLS:
            self._held = [opening[:-1]]
            return self._start_json(match.end() - 1)
        self._state = self._before_json
        return match.end()

    def _emit_line_aware(self, text: str) -> None:
        self._emit(text)
        self._blank = _ends_blank(text, self._blank)

    def _start_json(self, position: int) -> int:
        self._json = JsonScanner()
        marked = self._wrapper in (_CALL, _FUNCTOOLS)
        follows = self._stream and marked
        self._follower = CallFollower(self._num_calls, self._marked_names) if follows else None
        self._state = self._in_json
        return position

    def _before_json(self, text: str, start: int) -> int:
        """After `<|tool_call|>` or an opening fence: white space, then a bracket, or it is no call."""
        if text[start] in "[{":
            return self._start_json(start)
        if text[start] in JSON_SPACE:
            self._held.append(text[start])
            return start + 1
        return self._give_up(start)

    def _in_json(self, text: str, start: int) -> int:
        end = self._json.scan(text, start)
        self._held.append(text[start:end])
        if self._follower is not None:
            pieces = self._follower.push(text[start:end])
            if pieces:
                self._end_text()
                self._events += pieces
        if self._json.failed:
            return self._give_up(end)
        if self._json.complete:
            self._finish_json()
        return end

    def _finish_json(self) -> None:
        marker = {_CALL: _CALL, _FUNCTOOLS: _FUNCTOOLS[:-1]}.get(self._wrapper)
        source = "".join(self._held)
        if marker:
            source = source.removeprefix(marker)
        elif self._wrapper == _FENCE:
            source = source[source.find("\n") + 1 :] if source.startswith(_FENCE) else source
        calls = read_calls(source, self._num_calls, self._marked_names if marker else self._names)
        if not calls:
            self._give_up(0)
            return
        self._end_text()
        if self._stream:
            sent = self._follower.sent if self._follower is not None else ()
            self._events += unsent(calls, self._num_calls, sent)
        self._events.append(CallsFinished(calls))
        self._num_calls += len(calls)
        self._held, self._follower = [], None
        self._blank = True
        self._state = self._after_json if self._wrapper in (_CALL, _FENCE) else self._in_text

    def _after_json(self, text: str, start: int) -> int:
        """Inside a wrapper, behind finished calls: white space, more calls, or the closing marker."""
        closer = _CALL_END if self._wrapper == _CALL else _FENCE
        if text[start] in JSON_SPACE:
            return start + 1
        if text[start] in "[{":
            return self._start_json(start)
        piece = text[start : start + len(closer)]
        if not closer.startswith(piece):
            self._state, self._wrapper = self._in_text, ""
            return start
        if len(piece) < len(closer):
            self._partial = piece
            return len(text)
        self._state, self._wrapper = self._in_text, ""
        return start + len(closer)

    def _give_up(self, position: int) -> int:
        """Show the held text and go on as text from `position`."""
        held = "".join(self._held)
        if self._follower is not None and self._follower.sent:
            self._num_calls = max(self._follower.sent) + 1  # whoever reads along has heard of these
        self._held, self._follower, self._wrapper, self._state = [], None, "", self._in_text
        self._emit_line_aware(held)
        return position


def _partial_opening(text: str, start: int, blank: bool) -> int:
    """Index from which `text` may be the beginning of an opening that continues in the next piece."""
    tail_start = max(start, len(text) - _LONGEST_PARTIAL)
    for begin in range(tail_start, len(text)):
        tail = text[begin:]
        if _FUNCTOOLS.startswith(tail) or _CALL.startswith(tail):
            return begin
        at_line_start = tail[0] == "`" and _ends_blank(text[start:begin], blank)
        if at_line_start and _PARTIAL_FENCE.fullmatch(tail):
            return begin
    return len(text)


def _ends_blank(text: str, blank_before: bool) -> bool:
    """Is the last line of `text` only spaces and tabs so far?"""
    newline = text.rfind("\n")
    return not text[newline + 1 :].strip(" \t") and (newline >= 0 or blank_before)
