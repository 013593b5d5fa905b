"""Bodies: counted while they arrive, and parsed by a reader that takes nothing odd."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from phi4.errors import InvalidRequest
from phi4.server.http.body import MAX_DEPTH, MAX_VALUES, parse_object

Serve = Callable[..., Any]
JSON = [(b"content-type", b"application/json")]
CHAT = "/v1/chat/completions"


def nested(depth: int) -> bytes:
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[1]", "JSON object"),
        (b"null", "JSON object"),
        (b'"text"', "JSON object"),
        (b"\xff\xfe{\x00}\x00", "UTF-8"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"x": {"a": 1, "b": 2, "a": 1}}', "twice"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\uDFFF": 1}', "surrogate"),
        (b'{"a": ["\\ud83d"]}', "surrogate"),
        (nested(MAX_DEPTH + 1), "deeper"),
        (nested(100_000), "deeper"),
        (b'{"a": [' + b"1," * MAX_VALUES + b"1]}", "values"),
        (b'{"a": 1}{"b": 2}', "not JSON"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_odd_json_is_refused_with_a_reason(body: bytes, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        parse_object(body)


def test_ordinary_json_is_what_it_was() -> None:
    value = {"text": "grüße 😀 \u2028", "n": [1, -2.5, 1e10, True, None, {"": {}}], "big": 2**63}
    assert parse_object(json.dumps(value).encode()) == value
    assert parse_object(json.dumps(value, ensure_ascii=False).encode()) == value
    assert parse_object(nested(MAX_DEPTH))


def test_body_over_the_limit_is_cut_off_while_it_arrives(serve: Serve, visiting: Any) -> None:
    visit, visitor_class = visiting
    serving = serve(max_body_bytes=4096)
    visitor = visitor_class([b'{"a": "'] + [b"x" * 1000] * 1000)
    answered = asyncio.run(
        visit(serving.app, "POST", CHAT, headers=JSON, chunks=visitor.chunks, visitor=visitor)
    )
    assert answered.status == 413 and answered.error["code"] == "request_too_large"
    assert visitor.sent <= 6, "nothing is read beyond the limit"


def test_form_over_the_limit_is_cut_off_while_it_arrives(serve: Serve, visiting: Any) -> None:
    visit, visitor_class = visiting
    serving = serve(max_body_bytes=4096)
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    visitor = visitor_class([head] + [b"x" * 1000] * 1000)
    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    route = "/v1/audio/transcriptions"
    answered = asyncio.run(
        visit(serving.app, "POST", route, headers=headers, chunks=visitor.chunks, visitor=visitor)
    )
    assert answered.status == 413 and visitor.sent <= 6
    assert serving.client.admission.held_bytes == 0 and serving.client.requests == []


def test_bytes_of_all_requests_together_are_bounded(serve: Serve) -> None:
    serving = serve(max_held_bytes=2**20, max_body_bytes=2**22)
    answered = serving.chat("x" * 2**21)
    assert answered.status == 503 and answered.error["code"] == "overloaded"
    assert int(answered.header("retry-after")) >= 1
    assert serving.client.admission.held_bytes == 0


def test_body_that_never_ends_is_given_up(serve: Serve, visiting: Any) -> None:
    visit, visitor_class = visiting
    serving = serve(body_timeout_s=0.1)

    class Silent(visitor_class):
        async def receive(self) -> dict[str, Any]:
            if self.sent:
                await asyncio.Event().wait()
            self.sent = 1
            return {"type": "http.request", "body": b"{", "more_body": True}

    work = visit(serving.app, "POST", CHAT, headers=JSON, visitor=Silent([b""]))
    answered = asyncio.run(asyncio.wait_for(work, 10))
    assert answered.status == 408 and answered.error["code"] == "request_timeout"


@pytest.mark.parametrize(
    "media_type", [b"text/plain", b"application/x-www-form-urlencoded", b"", b"text/json"]
)
def test_other_media_types_are_refused(serve: Serve, media_type: bytes) -> None:
    headers = [(b"content-type", media_type)] if media_type else []
    answered = serve().send("POST", CHAT, headers=headers, chunks=[b"{}"])
    assert answered.status == 415 and "application/json" in answered.error["message"]


def test_client_that_leaves_while_sending_is_forgotten(serve: Serve, visiting: Any) -> None:
    visit, visitor_class = visiting
    serving = serve()

    class Leaving(visitor_class):
        async def receive(self) -> dict[str, Any]:
            self.sent += 1
            first = {"type": "http.request", "body": b"{", "more_body": True}
            return first if self.sent == 1 else {"type": "http.disconnect"}

    answered = asyncio.run(visit(serving.app, "POST", CHAT, headers=JSON, visitor=Leaving([b""])))
    assert answered.status == 0 and serving.left_open == 0


def test_large_bodies_are_parsed_as_small_ones(serve: Serve) -> None:
    serving = serve()
    assert serving.chat("x" * 200_000).status == 200
    assert serving.client.requests[0].messages[0]["content"] == "x" * 200_000
    bad = serving.send("POST", CHAT, headers=JSON, chunks=[b'{"a": "' + b"x" * 200_000])
    assert bad.status == 400


def test_unknown_fields_are_ignored_and_named_in_the_log(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "phi4.server.http.body")
    assert serve().chat(fancy_new_field={"secret": "value"}).status == 200
    assert "fancy_new_field" in caplog.text and "secret" not in caplog.text


FIELD = b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
FILE = FIELD % (b"f", b'; filename="a"', b"x")
END = b"--b--\r\n"
BROKEN_FORMS = {
    "empty": (b"", "breaks off"),
    "nonsense": (b"nonsense", "does not follow its boundary"),
    "no name": (b"--b\r\n\r\nno name\r\n" + END, "no name"),
    "no end": (FILE[:-2], "breaks off"),
    "long field": (FIELD % (b"model", b"", b"x" * 70_000) + END, "a field has more than 65536 bytes"),
    "two files": (FILE * 2 + END, "more than one file"),
    "many fields": (FIELD % (b"x", b"", b"y") * 65 + END, "more than 64 fields"),
    "not UTF-8": (FIELD % (b"x", b"", b"\xff") + END, "not UTF-8"),
}


@pytest.mark.parametrize("case", BROKEN_FORMS)
def test_broken_or_crowded_forms_are_refused(serve: Serve, case: str) -> None:
    body, why = BROKEN_FORMS[case]
    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    answered = serve().send("POST", "/v1/audio/transcriptions", headers=headers, chunks=[body])
    assert answered.status == 400 and why in answered.error["message"]


def test_form_without_boundary_is_refused(serve: Serve) -> None:
    headers = [(b"content-type", b"multipart/form-data")]
    assert serve().send("POST", "/v1/audio/transcriptions", headers=headers, chunks=[b"x"]).status == 400
