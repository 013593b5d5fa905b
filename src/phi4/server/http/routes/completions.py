"""`/v1/completions`: texts continued as they stand, one or many prompts at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from phi4.server.http.answers import Answer, check_ended, count, reason, stop_reason
from phi4.server.http.exchange import Begun, Exchange, Service
from phi4.server.http.openapi import body_of
from phi4.server.http.schemas.completions import CompletionRequest
from phi4.server.http.streaming import DONE, sse
from phi4.server.worker.values import ScoredToken


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the route to an app."""

    @app.post("/v1/completions", **body_of(CompletionRequest, streams=True))
    async def completions(request: Request) -> Response:
        """Continue one or several texts."""
        exchange = Exchange(service, request)
        asked = await exchange.json(CompletionRequest)
        model = service.models.find(asked.model)
        begun = await exchange.begin(asked.prepare(model.adapter), asked.options(exchange.key), model)
        if asked.stream:
            with_usage = bool(asked.stream_options and asked.stream_options.include_usage)
            return exchange.stream(chunks(exchange, begun, asked, with_usage))
        answers = await exchange.answers(begun)
        choices = [
            _choice(index, _echo(asked, index) + answer.text, answer.logprobs, asked)
            | {"finish_reason": reason(answer.finish_reason), **stop_reason(answer.finish_reason)}
            for index, answer in enumerate(answers)
        ]
        usage = count(answers, asked.num_choices).as_usage()
        return JSONResponse({**_head(exchange, begun), "choices": choices, "usage": usage})


async def chunks(
    exchange: Exchange, begun: Begun, asked: CompletionRequest, with_usage: bool
) -> AsyncGenerator[bytes, None]:
    """The answers as a stream of pieces."""
    head = _head(exchange, begun) | ({"usage": None} if with_usage else {})
    answers = [Answer() for _ in range(begun.count)]
    lengths = [0] * begun.count
    started: set[int] = set()
    async for event in begun.events:
        answers[event.index].add(event)
        text = event.text if event.index in started else _echo(asked, event.index) + event.text
        started.add(event.index)
        choice = _choice(event.index, text, event.logprobs, asked, lengths[event.index])
        lengths[event.index] += sum(len(scored.token.text) for scored in event.logprobs)
        if event.finish_reason is not None:
            choice |= {"finish_reason": reason(event.finish_reason), **stop_reason(event.finish_reason)}
        if text or event.logprobs or event.finish_reason is not None:
            yield sse({**head, "choices": [choice]})
    check_ended(answers)
    if with_usage:
        yield sse({**head, "choices": [], "usage": count(answers, asked.num_choices).as_usage()})
    yield DONE


def _head(exchange: Exchange, begun: Begun) -> dict[str, Any]:
    return {
        "id": f"cmpl-{exchange.id.removeprefix('req_')}",
        "object": "text_completion",
        "created": exchange.created,
        "model": begun.model,
    }


def _echo(asked: CompletionRequest, index: int) -> str:
    prompt = asked.prompt[index // asked.num_choices]
    return prompt if asked.echo and isinstance(prompt, str) else ""


def _choice(
    index: int, text: str, tokens: Sequence[ScoredToken], asked: CompletionRequest, offset: int = 0
) -> dict[str, Any]:
    shown = _logprobs(tokens, offset) if asked.logprobs is not None else None
    return {"index": index, "text": text, "logprobs": shown, "finish_reason": None}


def _logprobs(tokens: Sequence[ScoredToken], offset: int) -> dict[str, Any]:
    """Log-probabilities in this route's older form: lists beside each other, candidates as an object."""
    offsets = []
    for scored in tokens:
        offsets.append(offset)
        offset += len(scored.token.text)
    return {
        "tokens": [scored.token.text for scored in tokens],
        "token_logprobs": [max(scored.token.logprob, -9999.0) for scored in tokens],
        "top_logprobs": [
            {other.text: max(other.logprob, -9999.0) for other in reversed(scored.top)} for scored in tokens
        ],
        "text_offset": offsets,
    }
