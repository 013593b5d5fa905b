"""JSON of tool calls: finding where a value ends while it streams, and reading calls from it.

`JsonScanner` follows strings and brackets a piece at a time and fails at the first character that
cannot belong to a call; `read_calls` decodes a finished value. Both are linear in the text.

Left out on purpose: full JSON grammar in the scanner, since the decoder checks the finished value.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from phi4.types import ToolCall

JSON_SPACE = " \t\r\n"
CALL_BEGIN, CALL_END = "\ud800", "\udbff"
"""The model's own tokens around a call, in text on its way to a parser: halves of characters, which decoded
text never has, so that nothing a model spells out in ordinary tokens is taken for them."""
MAX_DEPTH = 64
_OUTSIDE_STRING = re.compile(r"[ \t\r\n0-9+\-.eE,:trufalsn]+")
_INSIDE_STRING = re.compile(rf'[^"\\\x00-\x1f{CALL_BEGIN}{CALL_END}]+')
# An object whose first key is none of these is no call; seeing that early keeps JSON answers streaming.
_FIRST_KEYS = frozenset(("name", "arguments", "parameters", "function", "type", "id"))


class JsonScanner:
    """Finds the end of one JSON list or object, a piece at a time, and fails early on other text."""

    def __init__(self) -> None:
        self.failed = False
        self.complete = False
        self._closers: list[str] = []
        self._in_string = False
        self._escaped = False
        self._first_key: list[str] | None = []  # None once the first key was seen and accepted

    def scan(self, text: str, start: int) -> int:
        """Scan from `start`; return where it stopped.

        That is behind the finished value, at the character that cannot be JSON, or at the end of `text`.
        """
        position = start
        while position < len(text) and not (self.failed or self.complete):
            position = self._string(text, position) if self._in_string else self._outside(text, position)
        return position

    def _string(self, text: str, position: int) -> int:
        match = _INSIDE_STRING.match(text, position) if not self._escaped else None
        if match:
            self._remember(match[0])
            return match.end()
        char = text[position]
        if char < " " or char in (CALL_BEGIN, CALL_END):
            self.failed = True
            return position
        if self._escaped or char == "\\":
            self._escaped = not self._escaped
        elif char == '"':
            self._in_string = False
            if self._first_key is not None:
                self.failed = "".join(self._first_key) not in _FIRST_KEYS
                self._first_key = None
        self._remember(char)
        return position + 1

    def _remember(self, text: str) -> None:
        if self._first_key is not None:
            self._first_key.append(text)

    def _outside(self, text: str, position: int) -> int:
        match = _OUTSIDE_STRING.match(text, position)
        if match:
            if self._first_key is not None and match[0].strip(JSON_SPACE):
                self.failed = True
                return match.end() - len(match[0].lstrip(JSON_SPACE))
            return match.end()
        char = text[position]
        if char == '"':
            # The first string has to be a key of the outer object or of the first object in the list.
            self.failed = self._first_key is not None and self._closers not in (["}"], ["]", "}"])
            self._in_string = not self.failed
        elif char in "[{":
            self._closers.append("]" if char == "[" else "}")
            self.failed = len(self._closers) > MAX_DEPTH
        elif self._closers and char == self._closers[-1]:
            self._closers.pop()
            self.complete = not self._closers
        else:
            self.failed = True
        return position if self.failed else position + 1


def read_calls(source: str, num_before: int, names: Collection[str] | None) -> tuple[ToolCall, ...]:
    """Decode calls; an empty result means that this is not a list of calls."""
    value = _decode(source)
    entries = value if isinstance(value, list) else [value]
    calls = [_read_call(entry, f"call_{num_before + index}") for index, entry in enumerate(entries)]
    complete = tuple(call for call in calls if call is not None and (names is None or call.name in names))
    return complete if len(complete) == len(entries) else ()


def _decode(source: str) -> Any:
    """JSON value of `source`, None when it is not valid."""
    try:
        value = json.loads(source, parse_constant=_refuse_number, parse_float=_finite)
        source.encode()
        json.dumps(value, ensure_ascii=False).encode()  # an escaped lone surrogate would fail later
    except (ValueError, RecursionError):
        return None
    return value


def _refuse_number(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large")
    return value


def _read_call(entry: Any, call_id: str) -> ToolCall | None:
    if isinstance(entry, Mapping) and isinstance(entry.get("function"), Mapping):
        entry = entry["function"]
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str) or not entry["name"]:
        return None
    if "arguments" not in entry and "parameters" not in entry:
        return None
    arguments = entry.get("arguments", entry.get("parameters"))
    if isinstance(arguments, str):
        arguments = _decode(arguments) if arguments.strip() else {}
    elif arguments is None:
        arguments = {}
    return ToolCall(entry["name"], arguments, call_id) if isinstance(arguments, dict) else None
