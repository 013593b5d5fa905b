"""Items of `/v1/responses`, there and back: what a conversation consists of in that route's words.

`resolved` makes items of whatever stands in `input`; `to_messages` turns items, a client's own and those a
response put out, into the messages of chat completions, which is the one form the preparer knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from phi4.server.http.errors import InvalidField
from phi4.server.http.schemas.messages import MAX_MESSAGES, MAX_PARTS

_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
"""Type of a part that is text -> the field the text stands in."""
REFERENCE = "item_reference"
Find = Callable[[str], dict[str, Any] | None]


def resolved(given: str | Sequence[dict[str, Any]], find: Find) -> list[dict[str, Any]]:
    """Input of a response as items that each have a type, and none of which only points to another.

    Args:
        given: A question, or items.
        find: An item that is kept, by its id.

    Raises:
        InvalidField: There are too many, or one points to an item that is not kept.
    """
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]
    if len(given) > MAX_MESSAGES:
        raise InvalidField("input", f"has {len(given)} items, at most {MAX_MESSAGES} are possible")
    return [_resolved(item, f"input[{index}]", find) for index, item in enumerate(given)]


def _resolved(item: dict[str, Any], where: str, find: Find) -> dict[str, Any]:
    kind = item.get("type") or (REFERENCE if "role" not in item and "id" in item else "message")
    if kind != REFERENCE:
        return {**item, "type": kind}
    name = item.get("id")
    found = find(name) if isinstance(name, str) else None
    if found is None:
        raise InvalidField(f"{where}.id", "names no item that is kept; send the item itself")
    return found


def to_messages(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Items as messages; calls that follow each other belong to one turn.

    Args:
        items: Resolved input, or what a response put out.

    Raises:
        InvalidField: An item or a part is of a kind that cannot be had here.
    """
    messages: list[dict[str, Any]] = []
    for index, item in enumerate(items):
        kind = item["type"]
        reader = _READERS.get(kind) if isinstance(kind, str) else None
        if reader is None:
            known = (*_READERS, REFERENCE)
            raise InvalidField(f"input[{index}].type", f"has to be one of {', '.join(known)}")
        reader(item, f"input[{index}]", messages)
    return messages


def _message(item: dict[str, Any], where: str, messages: list[dict[str, Any]]) -> None:
    content = item.get("content")
    if isinstance(content, list):
        if len(content) > MAX_PARTS:
            raise InvalidField(f"{where}.content", f"has more than {MAX_PARTS} parts")
        content = [_part(part, f"{where}.content[{index}]") for index, part in enumerate(content)]
    elif not isinstance(content, str):
        raise InvalidField(f"{where}.content", "has to be text or a list of parts")
    messages.append({"role": item.get("role"), "content": content})


def _part(part: Any, where: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(kind, str) and kind in _TEXTS:
        return {"type": "text", "text": part.get(_TEXTS[kind])}
    if kind == "input_image":
        return _image(part, where)
    if kind == "input_file":
        return _file(part, where)
    if kind in ("input_audio", "image_url", "audio_url", "video_url", "file"):
        return dict(part)
    known = (*_TEXTS, "input_image", "input_file", "input_audio", "audio_url", "video_url")
    raise InvalidField(f"{where}.type", f"has to be one of {', '.join(known)}")


def _image(part: dict[str, Any], where: str) -> dict[str, Any]:
    if part.get("file_id"):
        raise InvalidField(f"{where}.file_id", "is not read: no files are kept here; give image_url")
    image: dict[str, Any] = {"url": part.get("image_url")}
    if part.get("detail") is not None:
        image["detail"] = part["detail"]
    return {"type": "image_url", "image_url": image}


def _file(part: dict[str, Any], where: str) -> dict[str, Any]:
    if part.get("file_id"):
        raise InvalidField(f"{where}.file_id", "is not read: no files are kept here; give file_data")
    kept = ("file_data", "file_url", "filename")
    return {"type": "file", "file": {name: part[name] for name in kept if part.get(name) is not None}}


def _call(item: dict[str, Any], where: str, messages: list[dict[str, Any]]) -> None:
    if item.get("status") == "incomplete":
        return  # its arguments broke off; nobody can have run it
    call = {
        "id": item.get("call_id"),
        "type": "function",
        "function": {"name": item.get("name"), "arguments": item.get("arguments", "{}")},
    }
    if messages and messages[-1]["role"] == "assistant":
        turn = messages[-1]
    else:
        turn = {"role": "assistant", "content": None}
        messages.append(turn)
    turn.setdefault("tool_calls", []).append(call)


def _output(item: dict[str, Any], where: str, messages: list[dict[str, Any]]) -> None:
    output = item.get("output")
    if isinstance(output, list):
        output = [_part(part, f"{where}.output[{index}]") for index, part in enumerate(output)]
    elif not isinstance(output, str):
        raise InvalidField(f"{where}.output", "has to be text or a list of parts")
    messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": output})


def _nothing(item: dict[str, Any], where: str, messages: list[dict[str, Any]]) -> None:
    """What another model thought is not shown to this one."""


_READERS: dict[str, Callable[[dict[str, Any], str, list[dict[str, Any]]], None]] = {
    "message": _message,
    "function_call": _call,
    "function_call_output": _output,
    "reasoning": _nothing,
}
