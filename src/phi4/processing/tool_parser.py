"""Tool calls in the model's answer, found while it streams and in every spelling seen in use.

Native calls stand between the model's own control tokens, which `engine.answer` hands over as `CALL_BEGIN`
and `CALL_END`, two characters no text has. Other dialects are text: `functools[...]`; `<|tool_call|>` and
`<|/tool_call|>` spelled out, the latter may be missing; a bare JSON list or object at the start of a line,
also inside a code fence. Each call is `{name, arguments}` (or `parameters`; arguments may be JSON text;
`{"function": {...}}` wrappers too). Whatever does not turn out to be calls, broken JSON included, is ordinary
text, without control tokens; a native call that is cut off by the end of the answer is not shown.

The parser moves over the answer one character at a time and never goes back: work is linear, and how
the text was cut into pieces cannot matter. Left out on purpose: knowing schemas; see `judge`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from phi4.processing.tool_json import CALL_BEGIN, CALL_END, JSON_SPACE, JsonScanner, read_calls
from phi4.processing.tool_openings import (
    CLOSERS,
    FENCE,
    FUNCTOOLS,
    SPELLED,
    ends_blank,
    find_opening,
    partial_opening,
)
from phi4.processing.tool_stream import CallFollower, ToolCallDelta, unsent
from phi4.types import ToolCall

Judge = Callable[[Sequence[ToolCall]], bool]
"""Whether calls that were not written the native way may count as calls."""


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
        self,
        tool_names: Collection[str] | None = None,
        *,
        stream: bool = False,
        dialects: bool = True,
        judge: Judge | None = None,
        most: int | None = None,
    ) -> None:
        """Start an empty answer.

        Args:
            tool_names: Functions that were offered. Bare JSON counts as a call only when it names one of
                them; None = not known, any name counts.
            stream: Also give out calls as they are written, as `ToolCallDelta`s: native ones in pieces,
                others whole, since they may be no calls until their end.
            dialects: False = only native calls count, everything else is text.
            judge: Asked about calls in any other dialect; what it refuses is text. None = marked ones count
                whatever they name, so that the caller can answer that there is no such function. Native calls
                are not asked about: who judges has them written under a grammar.
            most: Calls an answer may hold; those beyond are neither text nor calls. None = any number.
        """
        self._names = None if tool_names is None else frozenset(tool_names)
        self._events: list[ParserEvent] = []
        self._text: list[str] = []  # decided text that is not yet an event
        self._num_calls = 0
        self._state = self._in_text
        self._wrapper = ""  # what the calls stand in: CALL_BEGIN, SPELLED, FENCE, FUNCTOOLS or nothing
        self._partial = ""  # short text that may begin an opening or a closing marker
        self._blank = True  # only white space so far on the line on which `_partial` starts
        self._held: list[str] = []  # text since the opening, shown again if this is no call
        self._stream = stream
        self._dialects = dialects
        self._judge = judge
        self._most = most
        self._follower: CallFollower | None = None  # of the native calls that are being written
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
        """End the answer; what never became a call comes out as text, unless it was a native one."""
        if self._wrapper != CALL_BEGIN:
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
        found = find_opening(text, start, self._blank, self._dialects)
        if found is None:
            held = partial_opening(text, start, self._blank) if self._dialects else len(text)
            self._emit_line_aware(text[start:held])
            self._partial = text[held:]
            return len(text)
        opening, end = found
        begin = end - len(opening)
        self._emit_line_aware(text[start:begin])
        self._wrapper = ""
        if opening == CALL_END:
            return end
        if opening[0] in "[{":
            return self._start_json(begin)
        self._held = [] if opening == CALL_BEGIN else [opening]
        self._wrapper = FENCE if opening.startswith(FENCE) else opening
        if opening == FUNCTOOLS:
            self._held = [opening[:-1]]
            return self._start_json(end - 1)
        self._state = self._before_json
        return end

    def _emit_line_aware(self, text: str) -> None:
        self._emit(text)
        self._blank = ends_blank(text, self._blank)

    def _start_json(self, position: int) -> int:
        self._json = JsonScanner()
        followed = self._stream and self._wrapper == CALL_BEGIN
        self._follower = CallFollower(self._num_calls) if followed else None
        self._state = self._in_json
        return position

    def _before_json(self, text: str, start: int) -> int:
        """After a marker or an opening fence: white space, then a bracket, or it is no call."""
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
            followed = self._follower.push(text[start:end])
            pieces = [piece for piece in followed if self._has_room(piece.index)]
            if pieces:
                self._end_text()
                self._events += pieces
        if self._json.failed:
            return self._give_up(end)
        if self._json.complete:
            self._finish_json()
        return end

    def _finish_json(self) -> None:
        calls = self._read("".join(self._held))
        if not calls:
            self._give_up(0)
            return
        sent = self._follower.sent if self._follower is not None else ()
        kept = calls if self._most is None else calls[: max(0, self._most - self._num_calls)]
        if kept:
            self._end_text()
            if self._stream:
                self._events += unsent(kept, self._num_calls, sent)
            self._events.append(CallsFinished(kept))
        self._num_calls += len(kept)
        self._held, self._follower = [], None
        self._blank = True
        self._state = self._after_json if self._wrapper in CLOSERS else self._in_text

    def _read(self, source: str) -> tuple[ToolCall, ...]:
        """The calls in what was held; none = it is text."""
        marker = {SPELLED: SPELLED, FUNCTOOLS: FUNCTOOLS[:-1]}.get(self._wrapper, "")
        if self._wrapper == FENCE and source.startswith(FENCE):
            source = source[source.find("\n") + 1 :]
        marked = self._wrapper in (CALL_BEGIN, SPELLED, FUNCTOOLS)
        calls = read_calls(source.removeprefix(marker), self._num_calls, None if marked else self._names)
        if calls and self._judge is not None and self._wrapper != CALL_BEGIN:
            # Of calls there is no room for, one is enough to tell whether this is text.
            room = len(calls) if self._most is None else max(1, self._most - self._num_calls)
            return calls if self._judge(calls[:room]) else ()
        return calls

    def _has_room(self, index: int) -> bool:
        return self._most is None or index < self._most

    def _after_json(self, text: str, start: int) -> int:
        """Inside a wrapper, behind finished calls: white space, more calls, or the closing marker."""
        closer = CLOSERS[self._wrapper]
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
        """Show the held text, unless it was given out in pieces, and go on as text from `position`."""
        sent = self._follower is not None and self._follower.sent
        held = "" if sent else "".join(self._held)
        self._held, self._follower, self._wrapper, self._state = [], None, "", self._in_text
        self._emit_line_aware(held)
        return position
