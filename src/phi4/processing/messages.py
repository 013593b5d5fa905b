"""OpenAI-style dictionaries become `Message`s; anything not understood is refused, never dropped.

Content is a string or a list of parts: `text`, `image_url` (with OpenAI's `detail`), `audio_url`,
`input_audio`, `video_url`, `file`, and the short forms `{"type": "image", "image": source}`, `audio` and
`video`. Sources stay unopened here; the processor opens them. `parse_messages` also attaches media given
beside the messages to the last user message.

Left out on purpose: defaults such as a system message; the model was trained without one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from phi4.errors import InvalidRequest
from phi4.processing.detail import checked_detail
from phi4.processing.documents import parse_pages
from phi4.types import (
    AudioArrays,
    AudioPart,
    AudioSource,
    Detail,
    FilePart,
    ImageArrays,
    ImagePart,
    ImageSource,
    MediaSource,
    Message,
    Part,
    Role,
    TextPart,
    ToolCall,
    VideoPart,
)

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "tool_response": "tool",
}
_MESSAGE_KEYS = {"role", "content", "tool_calls", "tool_call_id"}
_FILE_KEYS = ("file_data", "filename", "pages", "detail")
_AUDIO_FORMATS = ("wav", "mp3", "flac", "ogg", "opus", "m4a", "mp4", "webm")


def parse_messages(
    messages: Sequence[Message | Mapping[str, Any]],
    images: ImageSource | Sequence[ImageSource] = (),
    audio: AudioSource | Sequence[AudioSource] = (),
) -> tuple[Message, ...]:
    """Check and convert a conversation.

    Args:
        messages: Dictionaries or `Message`s, in order.
        images: Pictures (one or several) put in front of the last user message's content.
        audio: Recordings (one or several) put behind those pictures.

    Raises:
        InvalidRequest: Names the message, the field, its value and what is valid.
    """
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise InvalidRequest(f"messages is a {type(messages).__name__}; give a list of messages")
    parsed = [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]
    media: tuple[Part, ...] = (
        *(ImagePart(_image_source(source, f"images[{i}]")) for i, source in enumerate(_several(images))),
        *(AudioPart(_audio_source(source, f"audio[{i}]")) for i, source in enumerate(_several(audio))),
    )
    return _attach(parsed, media) if media else tuple(parsed)


def _several(sources: Any) -> Sequence[Any]:
    return list(sources) if isinstance(sources, list | tuple) else [sources]


def _attach(messages: list[Message], media: tuple[Part, ...]) -> tuple[Message, ...]:
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if message.role == "user":
            messages[index] = replace(message, parts=media + message.parts)
            return tuple(messages)
    raise InvalidRequest("images or audio were given but there is no user message to attach them to; add one")


def _message(message: Any, where: str) -> Message:
    if isinstance(message, Message):
        return message
    if not isinstance(message, Mapping):
        raise InvalidRequest(
            f"{where} is a {type(message).__name__}; it must be an object with role and content"
        )
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise InvalidRequest(f"{where}.role is {role!r}; valid are {', '.join(_ROLES)}")
    # Clients send back what they received, with empty fields such as `refusal: null`; those carry nothing.
    unknown = sorted(
        str(k) for k, value in message.items() if k not in _MESSAGE_KEYS and value not in (None, [], "")
    )
    if unknown:
        raise InvalidRequest(
            f"{where} has the field {unknown[0]!r}; valid are {', '.join(sorted(_MESSAGE_KEYS))}"
        )
    calls = _tool_calls(message.get("tool_calls"), where)
    if calls and role != "assistant":
        raise InvalidRequest(f"{where} has tool_calls but the role {role!r}; only an assistant makes calls")
    call_id = message.get("tool_call_id") or ""
    if not isinstance(call_id, str):
        raise InvalidRequest(f"{where}.tool_call_id is {call_id!r}; it must be text")
    return Message(_ROLES[role], _parts(message.get("content"), bool(calls), where), calls, call_id)


def _parts(content: Any, may_be_missing: bool, where: str) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (TextPart(content),)
    if content is None and may_be_missing:
        return ()
    if not isinstance(content, list | tuple):
        raise InvalidRequest(f"{where}.content is {_short(content)}; it must be text or a list of parts")
    return tuple(_part(part, f"{where}.content[{index}]") for index, part in enumerate(content))


def _part(part: Any, where: str) -> Part:
    if isinstance(part, Part):
        return part
    if isinstance(part, str):
        return TextPart(part)
    if not isinstance(part, Mapping):
        raise InvalidRequest(f"{where} is a {type(part).__name__}; it must be an object with a type")
    kind = part.get("type")
    reader = _PART_READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise InvalidRequest(f"{where}.type is {kind!r}; valid are {', '.join(_PART_READERS)}")
    unknown = sorted(str(key) for key in part if key not in ("type", kind))
    if unknown or kind not in part:
        problem = f"has the field {unknown[0]!r}" if unknown else f"lacks the field {kind!r}"
        raise InvalidRequest(f"{where} {problem}; a part of type {kind!r} has 'type' and {kind!r} only")
    return reader(part[kind], f"{where}.{kind}")


def _text(value: Any, where: str) -> Part:
    if not isinstance(value, str):
        raise InvalidRequest(f"{where} is {_short(value)}; it must be text")
    return TextPart(value)


def _image_url(value: Any, where: str) -> Part:
    return ImagePart(_url(value, where, ("url", "detail")), _detail(value, where))


def _video_url(value: Any, where: str) -> Part:
    return VideoPart(_url(value, where, ("url", "detail")), _detail(value, where))


def _detail(value: Any, where: str) -> Detail | None:
    detail = value.get("detail") if isinstance(value, Mapping) else None
    return None if detail is None else checked_detail(detail, f"{where}.detail")


def _audio_url(value: Any, where: str) -> Part:
    return AudioPart(_url(value, where, ("url",)))


def _url(value: Any, where: str, keys: tuple[str, ...]) -> str:
    url = value
    if isinstance(value, Mapping):
        unknown = sorted(str(key) for key in value if key not in keys)
        if unknown:
            raise InvalidRequest(f"{where} has the field {unknown[0]!r}; valid are {', '.join(keys)}")
        url = value.get("url")
    if not isinstance(url, str) or not url:
        raise InvalidRequest(
            f"{where}.url is {_short(url)}; give a data: URL, a path or an http(s) URL as text"
        )
    return url


def _input_audio(value: Any, where: str) -> Part:
    if not isinstance(value, Mapping) or set(value) != {"data", "format"}:
        raise InvalidRequest(f"{where} must be an object with 'data' (base64) and 'format'")
    if not isinstance(value["data"], str) or not value["data"]:
        raise InvalidRequest(f"{where}.data is {_short(value['data'])}; it must be base64 text")
    if value["format"] not in _AUDIO_FORMATS:
        raise InvalidRequest(f"{where}.format is {value['format']!r}; valid are {', '.join(_AUDIO_FORMATS)}")
    return AudioPart(f"data:audio/{value['format']};base64,{value['data']}")


def _image(value: Any, where: str) -> Part:
    return ImagePart(_image_source(value, where))


def _audio(value: Any, where: str) -> Part:
    return AudioPart(_audio_source(value, where))


def _video(value: Any, where: str) -> Part:
    return VideoPart(_media_source(value, where))


def _file(value: Any, where: str) -> Part:
    """OpenAI's file object, with the pages that are wanted and their detail beside it; or the file itself."""
    if not isinstance(value, Mapping):
        return FilePart(_media_source(value, where))
    if value.get("file_id") is not None:
        raise InvalidRequest(f"{where}.file_id: no files are kept here; send the content as file_data")
    unknown = sorted(str(key) for key in value if key not in (*_FILE_KEYS, "file_id"))
    if unknown:
        raise InvalidRequest(f"{where} has the field {unknown[0]!r}; valid are {', '.join(_FILE_KEYS)}")
    data, name, pages = (value.get(key) for key in ("file_data", "filename", "pages"))
    if not isinstance(data, str | bytes) or not data:
        raise InvalidRequest(f"{where}.file_data is {_short(data)}; give a data: URL, base64 text or bytes")
    if name is not None and not isinstance(name, str):
        raise InvalidRequest(f"{where}.filename is {_short(name)}; it must be text")
    if isinstance(data, str) and data[:5].lower() != "data:":
        data = f"data:application/octet-stream;base64,{data}"
    span = None if pages is None else parse_pages(pages, f"{where}.pages")
    return FilePart(data, name or "", span, _detail(value, where))


def _media_source(value: Any, where: str) -> MediaSource:
    if not isinstance(value, str | Path | bytes):
        raise InvalidRequest(f"{where} is {_short(value)}; give a path, bytes or a data: URL")
    return value


def _image_source(value: Any, where: str) -> ImageSource:
    if not isinstance(value, str | Path | bytes | np.ndarray | Image.Image | ImageArrays):
        raise InvalidRequest(
            f"{where} is {_short(value)}; give a path, bytes, a data: URL, an array or a Pillow image"
        )
    return cast(ImageSource, value)


def _audio_source(value: Any, where: str) -> AudioSource:
    if not isinstance(value, str | Path | bytes | np.ndarray | AudioArrays):
        raise InvalidRequest(
            f"{where} is {_short(value)}; give a path, bytes, a data: URL or 16 kHz float32 samples"
        )
    return cast(AudioSource, value)


_PART_READERS: dict[str, Callable[[Any, str], Part]] = {
    "text": _text,
    "image_url": _image_url,
    "audio_url": _audio_url,
    "input_audio": _input_audio,
    "video_url": _video_url,
    "file": _file,
    "image": _image,
    "audio": _audio,
    "video": _video,
}


def _tool_calls(value: Any, where: str) -> tuple[ToolCall, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise InvalidRequest(f"{where}.tool_calls is {_short(value)}; it must be a list")
    return tuple(_tool_call(call, f"{where}.tool_calls[{index}]") for index, call in enumerate(value))


def _tool_call(call: Any, where: str) -> ToolCall:
    if isinstance(call, ToolCall):
        return call
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise InvalidRequest(f"{where} must be an object with function.name and function.arguments")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            raise InvalidRequest(f"{where}.arguments is {_short(arguments)}; it must be JSON") from None
    if not isinstance(arguments, Mapping):
        raise InvalidRequest(f"{where}.arguments is {_short(arguments)}; it must be a JSON object")
    call_id = call.get("id") or ""
    return ToolCall(function["name"], dict(arguments), call_id if isinstance(call_id, str) else str(call_id))


def _short(value: Any) -> str:
    """A value for an error message: never a megabyte of base64."""
    if isinstance(value, str | int | float | bool | None):
        shown = repr(value)
        return shown if len(shown) <= 60 else shown[:57] + "..."
    return f"a {type(value).__name__}"
