"""OpenAI-style dictionaries: everything valid is understood, everything else is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from phi4.errors import InvalidRequest
from phi4.processing.messages import parse_messages
from phi4.types import AudioPart, FilePart, ImagePart, Message, TextPart, ToolCall, VideoPart


def test_plain_conversation() -> None:
    parsed = parse_messages(
        [
            {"role": "developer", "content": "S"},
            {"role": "user", "content": "U"},
            {"role": "assistant", "content": "A", "refusal": None, "annotations": []},
        ]
    )
    assert parsed == (
        Message("system", (TextPart("S"),)),
        Message("user", (TextPart("U"),)),
        Message("assistant", (TextPart("A"),)),
    )


def test_every_part_type_is_read_in_place() -> None:
    content = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "auto"}},
        {"type": "image_url", "image_url": {"url": "c.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "d.png", "detail": None}},
        {"type": "image_url", "image_url": "sign.png"},
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
        {"type": "audio_url", "audio_url": {"url": "a.flac"}},
        {"type": "image", "image": Path("b.png")},
        {"type": "audio", "audio": b"RIFF"},
        {"type": "video_url", "video_url": {"url": "e.mp4", "detail": "low"}},
        {"type": "video_url", "video_url": "e.mp4"},
        {"type": "video", "video": Path("f.webm")},
        {
            "type": "file",
            "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "g.pdf", "pages": "2-3"},
        },
        {"type": "file", "file": {"file_data": "QUJD", "file_id": None, "detail": "high"}},
        {"type": "file", "file": {"file_data": b"ABC"}},
        {"type": "file", "file": Path("h.txt")},
    ]
    assert parse_messages([{"role": "user", "content": content}])[0].parts == (
        TextPart("look"),
        ImagePart("data:image/png;base64,AA==", "auto"),
        ImagePart("c.png", "low"),
        ImagePart("d.png"),
        ImagePart("sign.png"),
        AudioPart("data:audio/wav;base64,QUJD"),
        AudioPart("a.flac"),
        ImagePart(Path("b.png")),
        AudioPart(b"RIFF"),
        VideoPart("e.mp4", "low"),
        VideoPart("e.mp4"),
        VideoPart(Path("f.webm")),
        FilePart("data:application/pdf;base64,AA==", "g.pdf", (2, 3)),
        FilePart("data:application/octet-stream;base64,QUJD", "", None, "high"),
        FilePart(b"ABC"),
        FilePart(Path("h.txt")),
    )


def test_decoded_media_pass_through() -> None:
    pixels, samples = np.zeros((4, 4, 3), np.uint8), np.zeros(16, np.float32)
    picture = Image.new("RGB", (4, 4))
    content = [{"type": "image", "image": pixels}, {"type": "image", "image": picture}]
    (message,) = parse_messages([{"role": "user", "content": content}], audio=samples)
    assert [part.source for part in message.parts] == [samples, pixels, picture]  # type: ignore[union-attr]


def test_media_beside_the_messages_join_the_last_user_message() -> None:
    messages = [
        {"role": "user", "content": "first"},
        {"role": "user", "content": "second"},
        {"role": "assistant", "content": "A"},
    ]
    parsed = parse_messages(messages, images=["a.png", "b.png"], audio="c.wav")
    media = (ImagePart("a.png"), ImagePart("b.png"), AudioPart("c.wav"))
    assert parsed[0].parts == (TextPart("first"),)
    assert parsed[1].parts == (*media, TextPart("second"))


@pytest.mark.parametrize("arguments", ['{"room": "hall"}', {"room": "hall"}])
@pytest.mark.parametrize("wrapped", [True, False])
def test_tool_calls_are_read_in_every_form(arguments: Any, wrapped: bool) -> None:
    function = {"name": "f", "arguments": arguments}
    call = (
        {"id": "call_1", "type": "function", "function": function}
        if wrapped
        else {"id": "call_1", **function}
    )
    parsed = parse_messages(
        [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "ok"},
        ]
    )
    assert parsed[0] == Message("assistant", (), (ToolCall("f", {"room": "hall"}, "call_1"),))
    assert parsed[1] == Message("tool", (TextPart("ok"),), (), "call_1")


def test_messages_already_parsed_pass_through() -> None:
    message = Message("user", (TextPart("U"),))
    assert parse_messages([message]) == (message,)


def user(*content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(content)}]


REFUSED: dict[str, tuple[Any, str]] = {
    "no list": ("hello", "messages is a str"),
    "a message that is text": (["hello"], r"messages\[0\] is a str"),
    "unknown role": ([{"role": "robot", "content": "x"}], "role is 'robot'; valid are system"),
    "role of another type": ([{"role": ["user"], "content": "x"}], r"role is \['user'\]"),
    "unknown field": ([{"role": "user", "content": "x", "tools": "[]"}], "field 'tools'"),
    "no content": ([{"role": "user"}], "content is None"),
    "content of another type": ([{"role": "user", "content": 7}], "content is 7"),
    "unknown part": (user({"type": "smell", "smell": "x"}), r"content\[0\].type is 'smell'; valid are text"),
    "video without address": (
        user({"type": "video_url", "video_url": {"fps": 9}}),
        "field 'fps'; valid are url, detail",
    ),
    "video source of another type": (user({"type": "video", "video": 7}), "video is 7; give a path, bytes"),
    "file that is stored elsewhere": (
        user({"type": "file", "file": {"file_id": "file-1"}}),
        "file_id: no files are kept here; send the content as file_data",
    ),
    "file without content": (
        user({"type": "file", "file": {"filename": "a.pdf"}}),
        "file_data is None; give a data",
    ),
    "file with an unknown field": (
        user({"type": "file", "file": {"file_data": "QQ==", "dpi": 9}}),
        "field 'dpi'; valid are file_data, filename, pages, detail",
    ),
    "file with a name of another type": (
        user({"type": "file", "file": {"file_data": "QQ==", "filename": 7}}),
        "filename is 7; it must be text",
    ),
    "file with impossible pages": (
        user({"type": "file", "file": {"file_data": "QQ==", "pages": "5-2"}}),
        "file.pages is '5-2'; give pages such as",
    ),
    "file with unknown detail": (
        user({"type": "file", "file": {"file_data": "QQ==", "detail": "best"}}),
        "file.detail is 'best'",
    ),
    "file of another type": (user({"type": "file", "file": ["a.pdf"]}), "file is a list; give a path, bytes"),
    "part without a type": (user({"text": "x"}), "type is None"),
    "part type that cannot be looked up": (user({"type": {}}), "type is {}"),
    "part that is a number": (user("fine", 7), r"content\[1\] is a int"),
    "extra field in a part": (user({"type": "text", "text": "x", "cache": 1}), "field 'cache'"),
    "part without its value": (user({"type": "text"}), "lacks the field 'text'"),
    "text of another type": (user({"type": "text", "text": 7}), "text is 7"),
    "image without address": (user({"type": "image_url", "image_url": {}}), "url is None"),
    "image with unknown detail": (
        user({"type": "image_url", "image_url": {"url": "x", "detail": "original"}}),
        r"image_url\.detail is 'original'; valid are 'low', 'auto', 'high'",
    ),
    "image with detail of another type": (
        user({"type": "image_url", "image_url": {"url": "x", "detail": ["low"]}}),
        r"image_url\.detail is a list; valid are 'low'",
    ),
    "image with an unknown field": (
        user({"type": "image_url", "image_url": {"url": "x", "w": 1}}),
        "field 'w'",
    ),
    "image source of another type": (user({"type": "image", "image": 7}), "image is 7; give a path"),
    "audio source of another type": (user({"type": "audio", "audio": None}), "audio is None; give a path"),
    "audio without format": (
        user({"type": "input_audio", "input_audio": {"data": "x"}}),
        "'data'.* and 'format'",
    ),
    "audio of unknown format": (
        user({"type": "input_audio", "input_audio": {"data": "x", "format": "amr"}}),
        "format is 'amr'; valid are wav",
    ),
    "audio data of another type": (
        user({"type": "input_audio", "input_audio": {"data": b"x", "format": "wav"}}),
        "base64 text",
    ),
    "calls by a user": (
        [{"role": "user", "content": "x", "tool_calls": [{"name": "f"}]}],
        "only an assistant",
    ),
    "calls that are no list": ([{"role": "assistant", "content": "", "tool_calls": {}}], "must be a list"),
    "call without a name": ([{"role": "assistant", "content": "", "tool_calls": [{}]}], "function.name"),
    "arguments that are no JSON": (
        [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{"}]}],
        "must be JSON",
    ),
    "arguments nested without end": (
        [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "[" * 200_000}]}],
        r"arguments is '\[{50,60}\.\.\.; it must be JSON",
    ),
    "arguments that are a list": (
        [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "[1]"}]}],
        "must be a JSON object",
    ),
    "call id of another type": ([{"role": "tool", "content": "x", "tool_call_id": 7}], "tool_call_id is 7"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_anything_else_is_refused(case: str) -> None:
    messages, message = REFUSED[case]
    with pytest.raises(InvalidRequest, match=message):
        parse_messages(messages)


def test_media_without_a_user_message_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="no user message"):
        parse_messages([{"role": "system", "content": "S"}], images="a.png")


def test_errors_never_print_a_whole_payload() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_messages(user({"type": "input_audio", "input_audio": {"data": "A" * 10**6, "format": "xyz"}}))
    assert len(str(caught.value)) < 300
