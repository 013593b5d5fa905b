"""`/v1/audio/transcriptions` and `/v1/audio/translations`: recordings of any length written down.

A long recording comes as several parts that were cut where nobody speaks; they are answered side by side and
put together in order. Times are those of the parts, found by the cutting and not by the model, and the answer
says so. A recording in which nobody speaks gives an empty text and asks no model.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from phi4.processing.stitching import TranscriptSegment, join_texts
from phi4.processing.subtitles import to_srt, to_vtt, verbose_json
from phi4.server.http.answers import Answer, check_ended, count, token_logprob
from phi4.server.http.exchange import Begun, Exchange, Service
from phi4.server.http.openapi import form_of
from phi4.server.http.schemas.audio import AudioForm, checked_form
from phi4.server.http.streaming import sse

DEFAULT_TARGET = "en"
"""OpenAI's translations are to English."""


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the routes to an app."""

    @app.post("/v1/audio/transcriptions", **form_of(AudioForm))
    async def transcriptions(request: Request) -> Response:
        """Write down what a recording says."""
        return await _answer(service, request, "transcribe")

    @app.post("/v1/audio/translations", **form_of(AudioForm))
    async def translations(request: Request) -> Response:
        """Write down what a recording says in another language, English unless told otherwise."""
        return await _answer(service, request, "translate")


async def _answer(service: Service, request: Request, task: str) -> Response:
    exchange = Exchange(service, request)
    asked, file = checked_form(await exchange.form())
    model = service.models.find(asked.model)
    target = (asked.target_language or DEFAULT_TARGET) if task == "translate" else ""
    prepare = asked.prepare(file, target, model.adapter)
    begun = await exchange.begin(prepare, asked.options(exchange.key), model)
    if asked.stream:
        return exchange.stream(pieces(begun, asked))
    return _whole(begun, await exchange.answers(begun), asked, task, target or asked.language)


async def pieces(begun: Begun, asked: AudioForm) -> AsyncGenerator[bytes, None]:
    """The transcript as events, parts in their order although they are written side by side."""
    answers = [Answer() for _ in range(begun.count)]
    done = shown = ""
    at = 0
    async for event in begun.events:
        answers[event.index].add(event)
        while at < begun.count:
            whole = join_texts((done, answers[at].text))
            if len(whole) > len(shown):
                delta = {"type": "transcript.text.delta", "delta": whole[len(shown) :]}
                yield sse(delta, "transcript.text.delta")
                shown = whole
            if answers[at].finish_reason is None:
                break
            done, at = whole, at + 1
    check_ended(answers)
    last = {"type": "transcript.text.done", "text": _text(answers), "usage": _usage(answers)}
    yield sse(last | _logprobs(answers, asked), "transcript.text.done")


def _whole(
    begun: Begun, answers: list[Answer], asked: AudioForm, task: str, language: str | None
) -> Response:
    rows = begun.prepared.rows
    segments = [
        TranscriptSegment(row.start_s, row.end_s, answer.text.strip())
        for row, answer in zip(rows, answers, strict=True)
    ]
    text = _text(answers)
    if asked.response_format == "text":
        return PlainTextResponse(text + "\n")
    if asked.response_format == "srt":
        return PlainTextResponse(to_srt(segments))
    if asked.response_format == "vtt":
        return PlainTextResponse(to_vtt(segments))
    if asked.response_format == "verbose_json":
        temperature = asked.temperature or 0.0
        seconds = begun.prepared.duration_s
        return JSONResponse(
            verbose_json(segments, seconds, task=task, language=language, temperature=temperature)
        )
    return JSONResponse({"text": text, "usage": _usage(answers)} | _logprobs(answers, asked))


def _text(answers: list[Answer]) -> str:
    return join_texts([answer.text for answer in answers])


def _logprobs(answers: list[Answer], asked: AudioForm) -> dict[str, Any]:
    if not asked.with_logprobs:
        return {}
    kept = ("token", "logprob", "bytes")
    found = [token_logprob(scored) for answer in answers for scored in answer.logprobs]
    return {"logprobs": [{name: token[name] for name in kept} for token in found]}


def _usage(answers: list[Answer]) -> dict[str, Any]:
    found = count(answers)
    return {
        "type": "tokens",
        "input_tokens": found.prompt,
        "input_token_details": {"audio_tokens": found.audio, "text_tokens": found.prompt - found.audio},
        "output_tokens": found.completion,
        "total_tokens": found.total,
    }
