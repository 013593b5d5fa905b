"""Arguments of tool calls while the model still writes them, for a client that reads along.

`CallFollower` walks over the JSON behind a marker (`<|tool_call|>`, `functools`), the same characters that
`JsonScanner` lets through, and gives out the arguments of each call as they stand there. A call is told of
once its name is known and its arguments object begins. Entries in another form (arguments before the name,
arguments as JSON in a string, wrappers) are not followed: they come whole at the end of the list (`unsent`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from phi4.types import ToolCall

_DULL = re.compile(r'[^"\[\]{}:,]+')
_LETTERS = re.compile(r'[^"\\]+')
_ARGUMENTS = ("arguments", "parameters")


@dataclass(frozen=True)
class ToolCallDelta:
    """A piece of a call.

    Attributes:
        index: Number of the call in its answer, from 0.
        id: Name of the call, with its first piece; else empty.
        name: Function it calls, with its first piece; else empty.
        arguments: Next characters of the arguments, as the model wrote them; all pieces of a call that was
            finished, joined, are one JSON object.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class CallFollower:
    """Follows one list (or one object) of calls; `push` the pieces in order.

    Attributes:
        sent: Indexes of the calls whose arguments were given out, whole or in part.
    """

    def __init__(self, num_before: int, names: Collection[str] | None = None) -> None:
        """Start before the first bracket.

        Args:
            num_before: Calls this answer holds already; indexes and ids go on from there.
            names: Functions whose calls are followed; None = all.
        """
        self._names = names
        self.sent: set[int] = set()
        self._index = num_before - 1
        self._depth = 0
        self._call_depth = 0  # depth at which the keys of a call stand; known from the first bracket on
        self._quoted = self._escaped = False
        self._letters: list[str] = []
        self._awaits_key = False
        self._key = self._name = ""
        self._inside = False  # an arguments object
        self._announce = False
        self._begin = 0
        self._pieces: list[ToolCallDelta] = []

    def push(self, text: str) -> list[ToolCallDelta]:
        """Walk over the next characters; returns the arguments in them."""
        self._pieces = []
        self._begin = position = 0
        while position < len(text):
            position = self._string(text, position) if self._quoted else self._outside(text, position)
        if self._inside:
            self._send(text[self._begin :])
        return self._pieces

    def _outside(self, text: str, position: int) -> int:
        dull = _DULL.match(text, position)
        if dull:
            return dull.end()
        char = text[position]
        if char == '"':
            self._quoted, self._letters = True, []
        elif char in "[{":
            self._open(char, position)
        elif char in "]}":
            self._depth -= 1
            if self._inside and self._depth == self._call_depth:
                self._send(text[self._begin : position + 1])
                self._inside = False
        elif self._depth == self._call_depth:
            self._awaits_key = char == ","
        return position + 1

    def _open(self, char: str, position: int) -> None:
        self._depth += 1
        if self._depth == 1:
            self._call_depth = 1 if char == "{" else 2
        if self._depth == self._call_depth:
            self._index += 1
            self._awaits_key, self._key, self._name = True, "", ""
        elif self._depth == self._call_depth + 1 and char == "{" and self._key in _ARGUMENTS:
            known = bool(self._name) and (self._names is None or self._name in self._names)
            self._inside = known and self._index not in self.sent
            if self._inside:
                self.sent.add(self._index)
                self._announce, self._begin = True, position

    def _string(self, text: str, position: int) -> int:
        letters = None if self._escaped else _LETTERS.match(text, position)
        if letters:
            self._remember(letters[0])
            return letters.end()
        char = text[position]
        if self._escaped or char == "\\":
            self._escaped = not self._escaped
            self._remember(char)
        else:
            self._quoted = False
            self._end_string()
        return position + 1

    def _remember(self, letters: str) -> None:
        if self._depth == self._call_depth:
            self._letters.append(letters)

    def _end_string(self) -> None:
        if self._depth != self._call_depth:
            return
        if self._awaits_key:
            self._key, self._awaits_key = _decoded(self._letters), False
        elif self._key == "name":
            self._name = _decoded(self._letters)

    def _send(self, arguments: str) -> None:
        if self._announce:
            self._pieces.append(ToolCallDelta(self._index, f"call_{self._index}", self._name, arguments))
            self._announce = False
        elif arguments:
            self._pieces.append(ToolCallDelta(self._index, arguments=arguments))


def unsent(calls: Sequence[ToolCall], num_before: int, sent: Collection[int]) -> list[ToolCallDelta]:
    """Calls of a finished list that were not given out while it was written, each in one piece."""
    return [
        ToolCallDelta(index, call.id, call.name, json.dumps(call.arguments, ensure_ascii=False))
        for index, call in enumerate(calls, num_before)
        if index not in sent
    ]


def _decoded(letters: Sequence[str]) -> str:
    """The string a JSON literal spells; empty when it is none, which no key and no name is."""
    try:
        value = str(json.loads('"' + "".join(letters) + '"'))
        value.encode()  # an escaped lone surrogate cannot be sent
    except ValueError:
        return ""
    return value
