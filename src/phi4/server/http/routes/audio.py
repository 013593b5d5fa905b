"""`/v1/audio/transcriptions` and `/v1/audio/translations`: recordings of any length written down.

A long recording comes as several parts that were cut where nobody speaks; they are answered side by side and
put together in order. Times are those of the parts, found by the cutting and not by the model, and the answer
says so; it also says when a part was not written down whole. A recording in which nobody speaks gives an
empty text and asks no model.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from phi4.processing.stitching import TranscriptSegment, join_texts, reason_of_all
from phi4.processing.subtitles import to_srt, to_vtt, verbose_json
from phi4.server.http.answers import Answer, check_ended, count, token_logprob
from phi4.server.http.exchange import Begun, Exchange, Service
from phi4.server.http.openapi import form_of
from phi4.server.http.schemas.audio import AudioForm, checked_form
from phi4.server.http.streaming import sse

_log = logging.getLogger(__name__)

REASON_HEADER = "x-finish-reason"
"""Says in formats that have no place for it why a text ends."""


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
    target = asked.target() if task == "translate" else ""
    prepare = asked.prepare(file, target, model.adapter)
    begun = await exchange.begin(prepare, asked.options(exchange.key), model)
    if asked.stream:
        return exchange.stream(pieces(exchange, begun, asked))
    answers = await exchange.answers(begun)
    _log_cut(exchange.id, answers)
    return _whole(begun, answers, asked, target)


async def pieces(exchange: Exchange, begun: Begun, asked: AudioForm) -> AsyncGenerator[bytes, None]:
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
    _log_cut(exchange.id, answers)
    last = {"type": "transcript.text.done", **_json(answers, asked)}
    yield sse(last, "transcript.text.done")


def _whole(begun: Begun, answers: Sequence[Answer], asked: AudioForm, target: str) -> Response:
    """The answer in the format that was asked for; `target` is the language of a translation."""
    segments = [
        TranscriptSegment(
            row.start_s, row.end_s, answer.text.strip(), finish_reason=answer.finish_reason or "stop"
        )
        for row, answer in zip(begun.prepared.rows, answers, strict=True)
    ]
    if asked.response_format == "json":
        return JSONResponse(_json(answers, asked))
    if asked.response_format == "verbose_json":
        told = verbose_json(
            segments,
            begun.prepared.duration_s,
            task="translate" if target else "transcribe",
            language=target.lower() or None,
            temperature=asked.temperature or 0.0,
        )
        return JSONResponse(told)
    if asked.response_format == "text":
        text = join_texts([answer.text for answer in answers]) + "\n"
    else:
        text = to_srt(segments) if asked.response_format == "srt" else to_vtt(segments)
    return PlainTextResponse(text, headers={REASON_HEADER: _reason(answers)})


def _json(answers: Sequence[Answer], asked: AudioForm) -> dict[str, Any]:
    """OpenAI's short form; `finish_reason` is ours."""
    told = {
        "text": join_texts([answer.text for answer in answers]),
        "usage": _usage(answers),
        "finish_reason": _reason(answers),
    }
    return told | _logprobs(answers, asked)


def _reason(answers: Sequence[Answer]) -> str:
    return reason_of_all(answer.finish_reason or "stop" for answer in answers)


def _log_cut(request_id: str, answers: Sequence[Answer]) -> None:
    """Say in the log that parts of a recording were not written down whole."""
    cut = [answer.finish_reason for answer in answers if answer.finish_reason != "stop"]
    if cut:
        _log.warning(
            "%s: %d of %d parts of a recording are not whole (%s)",
            request_id,
            len(cut),
            len(answers),
            ", ".join(sorted({str(reason) for reason in cut})),
        )


def _logprobs(answers: Sequence[Answer], asked: AudioForm) -> dict[str, Any]:
    if not asked.with_logprobs:
        return {}
    kept = ("token", "logprob", "bytes")
    found = [token_logprob(scored) for answer in answers for scored in answer.logprobs]
    return {"logprobs": [{name: token[name] for name in kept} for token in found]}


def _usage(answers: Sequence[Answer]) -> dict[str, Any]:
    found = count(answers)
    return {
        "type": "tokens",
        "input_tokens": found.prompt,
        "input_token_details": {"audio_tokens": found.audio, "text_tokens": found.prompt - found.audio},
        "output_tokens": found.completion,
        "total_tokens": found.total,
    }
