"""Items of `/v1/responses`, there and back: what a conversation consists of in that route's words.

`to_messages` turns input items into the messages of chat completions, which is the one form the preparer
knows; `output_messages` does the same with items that a response put out, when the next one continues it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from phi4.server.http.errors import InvalidField
from phi4.server.http.schemas.messages import MAX_MESSAGES, MAX_PARTS

_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
"""Type of a part that is text -> the field the text stands in."""


def to_messages(given: str | Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Input of a response as messages; calls that follow each other belong to one turn.

    Args:
        given: A question, or items.

    Raises:
        InvalidField: An item or a part is of a kind that cannot be had here.
    """
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if len(given) > MAX_MESSAGES:
        raise InvalidField("input", f"has {len(given)} items, at most {MAX_MESSAGES} are possible")
    messages: list[dict[str, Any]] = []
    for index, item in enumerate(given):
        kind = item.get("type") or "message"
        reader = _READERS.get(kind) if isinstance(kind, str) else None
        if reader is None:
            raise InvalidField(f"input[{index}].type", f"has to be one of {', '.join(_READERS)}")
        reader(item, f"input[{index}]", messages)
    return messages


def output_messages(output: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a response put out, as the turns that come before the next one."""
    return to_messages(output)


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
