"""Messages: kept is what a model is shown, and a request opens nothing on this machine."""

from __future__ import annotations

from typing import Any

import pytest

from phi4.server.http.errors import InvalidField
from phi4.server.http.schemas.messages import checked_messages

PICTURE = "data:image/png;base64,AAAA"


def test_what_clients_send_back_is_taken() -> None:
    answer = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }
    result = {"role": "tool", "tool_call_id": "c1", "content": "7", "name": "f"}
    kept = checked_messages([answer, result])
    assert kept[0] == {"role": "assistant", "tool_calls": answer["tool_calls"], "content": None}
    assert kept[1] == {"role": "tool", "tool_call_id": "c1", "content": "7"}


def test_refusal_stands_for_the_text_it_replaced() -> None:
    assert checked_messages([{"role": "assistant", "content": None, "refusal": "no"}])[0]["content"] == "no"
    assert checked_messages([{"role": "assistant"}])[0]["content"] == ""


def test_parts_keep_their_order_and_what_is_said_of_them() -> None:
    parts = [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
        {"type": "image_url", "image_url": PICTURE},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "audio_url", "audio_url": {"url": "https://example.org/a.wav"}},
        {"type": "video_url", "video_url": {"url": "HTTP://example.org/v.mp4", "detail": None}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}},
        {"type": "refusal", "refusal": "b"},
    ]
    kept = checked_messages([{"role": "user", "content": parts}])[0]["content"]
    assert [part["type"] for part in kept] == [*[part["type"] for part in parts[:-1]], "text"]
    assert kept[1] == parts[1]
    assert kept[2] == {"type": "image_url", "image_url": {"url": PICTURE}}
    assert kept[5] == {"type": "video_url", "video_url": {"url": "HTTP://example.org/v.mp4"}}
    assert kept[7] == {"type": "text", "text": "b"}


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({}, "messages[0].role"),
        ({"role": "robot", "content": "x"}, "messages[0].role"),
        ({"role": ["user"], "content": "x"}, "messages[0].role"),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "user", "content": 5}, "messages[0].content"),
        ({"role": "user", "content": {}}, "messages[0].content"),
        ({"role": "user", "content": ["x"]}, "messages[0].content[0].type"),
        ({"role": "user", "content": [{"type": []}]}, "messages[0].content[0].type"),
        ({"role": "user", "content": [{"type": "image", "image": "x.png"}]}, "messages[0].content[0].type"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "messages[0].content[0].input_audio"),
        ({"role": "user", "content": [{"type": "file", "file": "x.pdf"}]}, "messages[0].content[0].file"),
        ({"role": "assistant", "function_call": {"name": "f"}}, "messages[0].function_call"),
        ({"role": "tool", "content": "x", "tool_call_id": False}, "messages[0].tool_call_id"),
        ({"role": "assistant", "tool_calls": {}}, "messages[0].tool_calls"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_wrong_places_are_named(message: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidField) as refused:
        checked_messages([message])
    assert refused.value.param == param


@pytest.mark.parametrize(
    "url",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "FILE:/etc/passwd",
        "../secret.png",
        "secret.png",
        "\\\\server\\share\\a.png",
        "C:\\a.png",
        "ftp://example.org/a",
        "jar:file:///a",
        "unix:/run/x",
        " data:image/png;base64,AAAA",
        "httpx://example.org",
        "",
        None,
        5,
    ],
)
@pytest.mark.parametrize("kind", ["image_url", "audio_url", "video_url"])
def test_only_data_and_http_urls_name_a_medium(kind: str, url: Any) -> None:
    for medium in ({"url": url}, url):
        with pytest.raises(InvalidField, match="data: URL"):
            checked_messages([{"role": "user", "content": [{"type": kind, kind: medium}]}])
