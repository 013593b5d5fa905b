"""Items of a response: what it was asked with, and what it puts out as it grows, with the events for that.

    items = OutputItems()
    for event in events:
        told += items.add(event)
    told += items.close()
    items.output                                # messages and function calls, whole

Whole answers and streams are made by the same steps, so they cannot differ.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from phi4.server.http.answers import token_logprob
from phi4.server.http.errors import InvalidField
from phi4.server.http.exchange import new_id
from phi4.server.worker.values import ScoredToken, ServerEvent, ToolCallDelta

Told = list[dict[str, Any]]
"""Events in order; whoever sends them numbers them."""
MAX_ID_CHARS = 128
_PREFIXES = {"function_call": "fc_", "function_call_output": "fco_", "reasoning": "rs_"}


def with_ids(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Items a client sent, each under an id by which it can be found again."""
    return [
        {**item, "id": item["id"] if _is_id(item.get("id")) else new_id(_PREFIXES.get(item["type"], "msg_"))}
        for item in items
    ]


def item_list(items: Sequence[dict[str, Any]], order: str | None) -> dict[str, Any]:
    """Items as a list of OpenAI's, all on one page.

    Args:
        items: In the order they were sent in; at least one.
        order: "asc" = in that order; "desc" or None = the last first.

    Raises:
        InvalidField: It is another order.
    """
    if order not in (None, "asc", "desc"):
        raise InvalidField("order", "has to be asc or desc")
    data = list(items) if order == "asc" else list(reversed(items))
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"],
        "last_id": data[-1]["id"],
        "has_more": False,
    }


class OutputItems:
    """Items of one response, the last of which may still be open.

    Attributes:
        output: All items.
    """

    def __init__(self) -> None:
        self.output: list[dict[str, Any]] = []
        self._is_open = False
        self._pieces: list[str] = []
        self._logprobs: list[dict[str, Any]] = []

    def add(self, event: ServerEvent) -> Told:
        """Take in a piece of the answer."""
        told: Told = []
        if event.text or event.logprobs:
            told += self._text(event.text, event.logprobs)
        for piece in event.tool_calls:
            told += self._call(piece)
        return told

    def close(self, status: str = "completed") -> Told:
        """Finish the item that is open; an answer without any gets an empty message.

        Args:
            status: "completed", or "incomplete" when the answer was cut; a call that is whole all the same is
                completed.
        """
        told = [] if self.output else self._open_message()
        return told + self._close(status)

    def _text(self, text: str, tokens: tuple[ScoredToken, ...]) -> Told:
        told: Told = []
        if not self._is_open or self.output[-1]["type"] != "message":
            told += self._close("completed") + self._open_message()
        shown = [token_logprob(scored) for scored in tokens]
        self._pieces.append(text)
        self._logprobs += shown
        return [*told, self._about("response.output_text.delta", content_index=0, delta=text, logprobs=shown)]

    def _call(self, piece: ToolCallDelta) -> Told:
        told: Told = []
        if piece.name:
            told += self._close("completed") + self._open_call(piece)
        if piece.arguments:
            self._pieces.append(piece.arguments)
            told.append(self._about("response.function_call_arguments.delta", delta=piece.arguments))
        return told

    def _open_message(self) -> Told:
        item = {"id": new_id("msg_"), "type": "message", "role": "assistant", "status": "in_progress"}
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        added = self._open({**item, "content": []})
        return [added, self._about("response.content_part.added", content_index=0, part=part)]

    def _open_call(self, piece: ToolCallDelta) -> Told:
        item = {
            "id": new_id("fc_"),
            "type": "function_call",
            "status": "in_progress",
            "call_id": piece.id or new_id("call_"),
            "name": piece.name,
            "arguments": "",
        }
        return [self._open(item)]

    def _open(self, item: dict[str, Any]) -> dict[str, Any]:
        self.output.append(item)
        self._is_open = True
        self._pieces, self._logprobs = [], []
        index = len(self.output) - 1
        return {"type": "response.output_item.added", "output_index": index, "item": dict(item)}

    def _close(self, status: str) -> Told:
        if not self._is_open:
            return []
        item, whole = self.output[-1], "".join(self._pieces)
        told: Told = []
        if item["type"] == "message":
            part = {"type": "output_text", "text": whole, "annotations": [], "logprobs": self._logprobs}
            told.append(
                self._about("response.output_text.done", content_index=0, text=whole, logprobs=self._logprobs)
            )
            told.append(self._about("response.content_part.done", content_index=0, part=part))
            item["content"] = [part]
        else:
            name = {"name": item["name"], "arguments": whole}
            told.append(self._about("response.function_call_arguments.done", **name))
            item["arguments"] = whole
            status = "completed" if _is_json(whole) else status
        item["status"] = status
        self._is_open = False
        index = len(self.output) - 1
        return [*told, {"type": "response.output_item.done", "output_index": index, "item": dict(item)}]

    def _about(self, kind: str, **more: Any) -> dict[str, Any]:
        return {"type": kind, "item_id": self.output[-1]["id"], "output_index": len(self.output) - 1, **more}


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARS


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
