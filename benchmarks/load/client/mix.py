"""Requests of every kind for the soak: text, pictures, recordings, tools, forms of answers, nonsense."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load.client.asking import chat, post, raw_post
from load.client.traces import OK

MEDIA = Path(__file__).resolve().parents[3] / "examples" / "media"
CANARY = chat("What is 17 + 25?", {"max_tokens": 100})
"""A question whose answer must be the same every time."""
_BOUNDARY = "soak-boundary"
_SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "integer"}, "unit": {"enum": ["m", "s"]}},
    "required": ["answer", "unit"],
    "additionalProperties": False,
}
_TOOL = {
    "type": "function",
    "function": {
        "name": "set_light",
        "description": "Switch a light.",
        "parameters": {
            "type": "object",
            "properties": {"room": {"type": "string"}, "on": {"type": "boolean"}},
            "required": ["room", "on"],
        },
    },
}


@dataclass(frozen=True)
class Kind:
    """A kind of request.

    Attributes:
        name: What reports call it.
        make: Gives one, with what chance has it.
        status: What it is answered with.
        weight: How often it comes, against the others.
    """

    name: str
    make: Callable[[random.Random], bytes]
    status: int = OK
    weight: int = 1


def all_kinds(media: Path = MEDIA) -> list[Kind]:
    """Every kind.

    Args:
        media: Folder with pictures and recordings.
    """
    pictures = [_url(path, "image/png") for path in sorted(media.glob("*.png"))]
    recordings = sorted(media.glob("*.wav"))
    sounds = [base64.b64encode(path.read_bytes()).decode() for path in recordings]
    return [
        Kind("streamed text", _streamed, weight=4),
        Kind("whole text", lambda chance: chat(_sum(chance), {"max_tokens": 120}), weight=3),
        Kind("drawn texts", _drawn, weight=2),
        Kind("picture", lambda chance: _chat_parts(_picture(chance, pictures), _text("What is it?"))),
        Kind("recording", lambda chance: _chat_parts(_sound(chance, sounds))),
        Kind("both", lambda chance: _chat_parts(_picture(chance, pictures), _sound(chance, sounds))),
        Kind("tools", _with_tools),
        Kind("json_schema", _with_schema),
        Kind("transcription", lambda chance: _transcription(chance.choice(recordings).read_bytes())),
        Kind("response", _response),
        Kind("nonsense", lambda chance: chat("hi", {"temperature": 9}), status=400),
    ]


def _sum(chance: random.Random) -> str:
    return f"What is {chance.randrange(1000)} + {chance.randrange(1000)}?"


def _streamed(chance: random.Random) -> bytes:
    return chat(_sum(chance), {"max_tokens": 120, "stream": True})


def _drawn(chance: random.Random) -> bytes:
    fields = {"max_tokens": 60, "temperature": 1.0, "n": chance.choice([1, 2, 3]), "stream": True}
    return chat("Write a sentence about the sea. " * chance.randrange(1, 20), fields)


def _with_tools(chance: random.Random) -> bytes:
    room = chance.choice(["kitchen", "hall", "garden"])
    fields = {"tools": [_TOOL], "tool_choice": chance.choice(["auto", "required"]), "max_tokens": 100}
    return chat(f"Turn on the light in the {room}.", {**fields, "stream": chance.random() < 0.5})


def _with_schema(chance: random.Random) -> bytes:
    shape = {"type": "json_schema", "json_schema": {"name": "sum", "schema": _SCHEMA, "strict": True}}
    return chat(_sum(chance), {"response_format": shape, "max_tokens": 60})


def _response(chance: random.Random) -> bytes:
    return post("/v1/responses", {"input": _sum(chance), "store": False, "stream": chance.random() < 0.5})


def _transcription(sound: bytes) -> bytes:
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        "Content-Type: audio/wav\r\n\r\n"
    )
    content = head.encode() + sound + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return raw_post("/v1/audio/transcriptions", content, f"multipart/form-data; boundary={_BOUNDARY}")


def _chat_parts(*parts: Mapping[str, Any]) -> bytes:
    body = {"messages": [{"role": "user", "content": list(parts)}], "max_tokens": 60, "stream": True}
    return post("/v1/chat/completions", body)


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _picture(chance: random.Random, urls: list[str]) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": chance.choice(urls), "detail": "auto"}}


def _sound(chance: random.Random, sounds: list[str]) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": chance.choice(sounds), "format": "wav"}}


def _url(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def answer_of(body: bytes) -> str:
    """What a whole chat completion says."""
    text: str = json.loads(body)["choices"][0]["message"]["content"]
    return text
