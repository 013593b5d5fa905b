"""Transcriptions and translations: every format, parts in order, and what was not heard whole is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from phi4.server.worker.values import Prepared, PreparedRow, ServerEvent
from phi4.types import Usage

Serve = Callable[..., Any]
BOUNDARY = b"zq9"


def form(*fields: tuple[str, str], file: bytes | None = b"RIFF") -> dict[str, Any]:
    """Arguments of a request that carries a form."""
    parts = [
        f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in fields
    ]
    if file is not None:
        parts.append(b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + file)
    body = (
        b"".join(b"--" + BOUNDARY + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + BOUNDARY + b"--\r\n"
    )
    return {"headers": [(b"content-type", b"multipart/form-data; boundary=" + BOUNDARY)], "chunks": [body]}


def transcript(serve: Serve, texts: list[str], **settings: Any) -> Any:
    """A server that hears these parts of a recording, half a minute each; words of later parts come first."""

    def script(index: int) -> list[ServerEvent]:
        words = texts[index].split(" ")
        pieces = [ServerEvent(index, word if at == 0 else f" {word}") for at, word in enumerate(words)]
        return [*pieces, ServerEvent(index, finish_reason="stop", usage=Usage(30, len(words), 0, 25))]

    serving = serve(script, **settings)
    rows = tuple(PreparedRow(b"x", 30, start_s=30.0 * at, end_s=30.0 * at + 28) for at in range(len(texts)))
    serving.client.prepared = Prepared(rows, duration_s=30.0 * len(texts))
    return serving


HEARD = ["one two three four", "five", "six seven"]
TEXT = "one two three four five six seven"
ROUTE = "/v1/audio/transcriptions"


def test_transcript_in_every_format(serve: Serve) -> None:
    serving = transcript(serve, HEARD)
    body = serving.send("POST", ROUTE, **form(("model", "nano"))).json()
    assert body["text"] == TEXT
    assert body["usage"]["input_token_details"] == {"audio_tokens": 75, "text_tokens": 15}
    text = serving.send("POST", ROUTE, **form(("response_format", "text")))
    assert text.body.decode() == TEXT + "\n" and (text.header("content-type") or "").startswith("text/plain")
    srt = serving.send("POST", ROUTE, **form(("response_format", "srt"))).body.decode()
    assert srt.startswith("1\n00:00:00,000 --> 00:00:28,000\none two three four\n")
    vtt = serving.send("POST", ROUTE, **form(("response_format", "vtt"))).body.decode()
    assert vtt.startswith("WEBVTT") and "derived" in vtt
    verbose = serving.send("POST", ROUTE, **form(("response_format", "verbose_json"))).json()
    assert (verbose["text"], verbose["duration"], verbose["finish_reason"]) == (TEXT, 90.0, "stop")
    assert [(part["start"], part["end"]) for part in verbose["segments"]] == [(0, 28), (30, 58), (60, 88)]
    assert serving.client.requests[0].audio == b"RIFF" and serving.client.requests[0].task == "transcribe"


def test_transcript_streams_its_parts_in_order(serve: Serve) -> None:
    events = transcript(serve, HEARD).send("POST", ROUTE, **form(("stream", "true"))).events()
    assert {event["type"] for event in events[:-1]} == {"transcript.text.delta"}
    assert "".join(event["delta"] for event in events[:-1]) == TEXT
    assert events[-1]["type"] == "transcript.text.done" and events[-1]["text"] == TEXT


def test_silence_is_an_empty_transcript_and_asks_no_model(serve: Serve) -> None:
    serving = transcript(serve, [])
    serving.client.prepared = Prepared((), duration_s=12.0)
    assert serving.send("POST", ROUTE, **form()).json()["text"] == ""
    assert serving.send("POST", ROUTE, **form(("response_format", "srt"))).body == b""
    verbose = serving.send("POST", ROUTE, **form(("response_format", "verbose_json"))).json()
    assert (verbose["segments"], verbose["duration"]) == ([], 12.0)
    events = serving.send("POST", ROUTE, **form(("stream", "true"))).events()
    assert [event["type"] for event in events] == ["transcript.text.done"] and events[0]["text"] == ""
    assert serving.client.options == []


def test_translation_is_to_english_unless_told_otherwise(serve: Serve) -> None:
    serving = transcript(serve, HEARD)
    assert serving.send("POST", "/v1/audio/translations", **form()).status == 200
    assert serving.send("POST", "/v1/audio/translations", **form(("target_language", "de"))).status == 200
    assert [request.translate_to for request in serving.client.requests] == ["English", "German"]
    told = serving.send("POST", "/v1/audio/translations", **form(("response_format", "verbose_json"))).json()
    assert (told["task"], told["language"]) == ("translate", "english")


def test_language_of_a_recording_is_checked_and_not_given_back_as_if_it_had_been_heard(serve: Serve) -> None:
    serving = transcript(serve, HEARD)
    for language in ("de", "German", ""):
        verbose = form(("language", language), ("response_format", "verbose_json"))
        assert serving.send("POST", ROUTE, **verbose).json()["language"] == "unknown"
    for field, route in (("language", ROUTE), ("target_language", "/v1/audio/translations")):
        refused = serving.send("POST", route, **form((field, "tlh")))
        assert refused.status == 400 and refused.error["param"] == field
        assert "'tlh'" in refused.error["message"] and "German (de)" in refused.error["message"]


@pytest.mark.parametrize("reason", ["length", "repetition"])
def test_a_part_that_is_not_whole_is_told_in_every_format(
    serve: Serve, caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    def script(index: int) -> list[ServerEvent]:
        ended = reason if index == 1 else "stop"
        return [ServerEvent(index, "word"), ServerEvent(index, finish_reason=ended, usage=Usage(9, 1))]

    serving = serve(script)
    rows = tuple(PreparedRow(b"x", 9, start_s=30.0 * at, end_s=30.0 * at + 28) for at in range(3))
    serving.client.prepared = Prepared(rows, duration_s=90.0)
    found = {
        name: serving.send("POST", ROUTE, **form(("response_format", name)))
        for name in ("json", "text", "srt", "vtt", "verbose_json")
    }
    assert found["json"].json()["finish_reason"] == found["verbose_json"].json()["finish_reason"] == reason
    parts = [part["finish_reason"] for part in found["verbose_json"].json()["segments"]]
    assert parts == ["stop", reason, "stop"]
    assert [found[name].header("x-finish-reason") for name in ("text", "srt", "vtt")] == [reason] * 3
    assert f"00:00:30.000 to 00:00:58.000 is not whole ({reason})" in found["vtt"].body.decode()
    last = serving.send("POST", ROUTE, **form(("stream", "true"))).events()[-1]
    assert last["finish_reason"] == reason
    assert caplog.text.count(f"1 of 3 parts of a recording are not whole ({reason})") == 6


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ((("response_format", "diarized_json"),), "response_format"),
        (
            (("timestamp_granularities[]", "word"), ("response_format", "verbose_json")),
            "timestamp_granularities",
        ),
        ((("temperature", "hot"),), "temperature"),
        ((("temperature", "nan"),), "temperature"),
        ((("model", "a"), ("model", "b")), "model"),
    ],
)
def test_fields_of_a_form_are_checked(serve: Serve, fields: Any, param: str) -> None:
    refused = transcript(serve, HEARD).send("POST", ROUTE, **form(*fields))
    assert refused.status == 400 and refused.error["param"] == param


def test_form_without_a_file_is_refused(serve: Serve) -> None:
    refused = serve().send("POST", ROUTE, **form(("model", "nano"), file=None))
    assert refused.status == 400 and refused.error["param"] == "file"
