"""Messages of a conversation: what may stand in a request, before anything of it is decoded.

Kept of a message is what a model is shown; what clients send back because they once received it (`refusal`,
`annotations`, `audio`, `name`) is dropped, unless it would have been shown. A part of an unknown kind is
refused, and so is a medium that is neither a `data:` URL nor http(s): a path in a request opens nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from phi4.server.http.errors import InvalidField

ROLES = ("system", "developer", "user", "assistant", "tool")
KEPT = ("role", "content", "tool_calls", "tool_call_id")
URL_PARTS = ("image_url", "audio_url", "video_url")
"""Parts whose medium is an object with a `url`."""
PART_KINDS = ("text", "refusal", *URL_PARTS, "input_audio", "file")
MAX_MESSAGES = 4096
MAX_PARTS = 4096

Messages = Annotated[
    list[dict[str, Any]],
    Field(min_length=1, max_length=MAX_MESSAGES),
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_MESSAGES,
            "items": {
                "type": "object",
                "required": ["role"],
                "properties": {
                    "role": {"type": "string", "enum": list(ROLES)},
                    "content": {
                        "anyOf": [
                            {"type": "string"},
                            {"type": "null"},
                            {
                                "type": "array",
                                "maxItems": MAX_PARTS,
                                "items": {
                                    "type": "object",
                                    "required": ["type"],
                                    "properties": {"type": {"type": "string", "enum": list(PART_KINDS)}},
                                },
                            },
                        ]
                    },
                    "tool_call_id": {"type": ["string", "null"]},
                    "tool_calls": {"type": ["array", "null"], "items": {"type": "object"}},
                },
            },
        }
    ),
]


def checked_messages(messages: Sequence[dict[str, Any]], where: str = "messages") -> list[dict[str, Any]]:
    """Messages as the preparer takes them.

    Args:
        messages: What the client sent.
        where: What errors call the list.

    Raises:
        InvalidField: Names the message and the part.
    """
    return [_message(message, f"{where}[{index}]") for index, message in enumerate(messages)]


def _message(message: dict[str, Any], where: str) -> dict[str, Any]:
    role = message.get("role")
    if role not in ROLES:
        raise InvalidField(f"{where}.role", f"has to be one of {', '.join(ROLES)}")
    if message.get("function_call"):
        raise InvalidField(f"{where}.function_call", "is not read; give tool_calls")
    kept = {name: message[name] for name in KEPT if message.get(name) is not None}
    if not isinstance(kept.get("tool_call_id", ""), str):
        raise InvalidField(f"{where}.tool_call_id", "has to be text")
    if not isinstance(kept.get("tool_calls", []), list):
        raise InvalidField(f"{where}.tool_calls", "has to be a list")
    content = kept.get("content")
    if isinstance(content, list):
        kept["content"] = checked_parts(content, f"{where}.content")
    elif content is None and role == "assistant":
        kept["content"] = message.get("refusal") or ("" if not kept.get("tool_calls") else None)
    elif not isinstance(content, str):
        raise InvalidField(f"{where}.content", "has to be text or a list of parts")
    return kept


def checked_parts(parts: list[Any], where: str) -> list[dict[str, Any]]:
    """Parts of one message.

    Raises:
        InvalidField: Names the part.
    """
    if len(parts) > MAX_PARTS:
        raise InvalidField(where, f"has {len(parts)} parts, at most {MAX_PARTS} are possible")
    return [_part(part, f"{where}[{index}]") for index, part in enumerate(parts)]


def _part(part: Any, where: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in PART_KINDS:
        raise InvalidField(f"{where}.type", f"has to be one of {', '.join(PART_KINDS)}")
    assert isinstance(part, dict)
    if kind in ("text", "refusal"):
        text = part.get(kind)
        if not isinstance(text, str):
            raise InvalidField(f"{where}.{kind}", "has to be text")
        return {"type": "text", "text": text}
    medium = part.get(kind)
    if kind in URL_PARTS:
        medium = _url(medium, f"{where}.{kind}")
    elif not isinstance(medium, dict):
        raise InvalidField(f"{where}.{kind}", "has to be an object")
    return {"type": kind, kind: medium}


def _url(medium: Any, where: str) -> dict[str, Any]:
    found = {"url": medium} if isinstance(medium, str) else medium
    url = found.get("url") if isinstance(found, dict) else None
    if not isinstance(url, str) or not is_url(url):
        raise InvalidField(f"{where}.url", "has to be a data: URL, or http(s) where the server fetches those")
    assert isinstance(found, dict)
    return {name: value for name, value in found.items() if value is not None}


def is_url(text: str) -> bool:
    """Whether a text has the form of a medium that a request may name."""
    return text[:8].lower().startswith(("data:", "http://", "https://"))
