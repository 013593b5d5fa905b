"""`/v1/chat/completions`: whole answers, or pieces of text and of tool arguments as they come."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from phi4.server.http.answers import Answer, Call, check_ended, count, reason, stop_reason, token_logprob
from phi4.server.http.exchange import Begun, Exchange, Service, new_id
from phi4.server.http.openapi import body_of
from phi4.server.http.schemas.chat import ChatRequest
from phi4.server.http.streaming import DONE, sse
from phi4.server.worker.values import ScoredToken, ServerEvent, ToolCallDelta
from phi4.version import __version__

FINGERPRINT = f"phi4-{__version__}"


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the route to an app."""

    @app.post("/v1/chat/completions", **body_of(ChatRequest, streams=True))
    async def chat_completions(request: Request) -> Response:
        """Answer a conversation of text, pictures, recordings, videos and documents."""
        exchange = Exchange(service, request)
        asked = await exchange.json(ChatRequest)
        model = service.models.find(asked.model)
        begun = await exchange.begin(asked.prepare(model.adapter), asked.options(exchange.key), model)
        if asked.stream:
            with_usage = bool(asked.stream_options and asked.stream_options.include_usage)
            return exchange.stream(chunks(exchange, begun, asked, with_usage))
        answers = await exchange.answers(begun)
        return JSONResponse(
            {
                **_head(exchange, begun, "chat.completion"),
                "choices": [_choice(index, answer, asked) for index, answer in enumerate(answers)],
                "usage": count(answers, asked.n or 1).as_usage(),
            }
        )


async def chunks(
    exchange: Exchange, begun: Begun, asked: ChatRequest, with_usage: bool
) -> AsyncGenerator[bytes, None]:
    """The answers as a stream of chunks: first the role, then pieces, then the reason, at last the usage."""
    head = _head(exchange, begun, "chat.completion.chunk") | ({"usage": None} if with_usage else {})
    answers = [Answer() for _ in range(begun.count)]
    started: set[int] = set()
    async for event in begun.events:
        answer = answers[event.index]
        answer.add(event)
        if event.index not in started:
            started.add(event.index)
            yield _chunk(head, event.index, {"role": "assistant", "content": "", "refusal": None})
        if event.text or event.logprobs:
            shown = _logprobs(event.logprobs) if asked.logprobs else None
            yield _chunk(head, event.index, {"content": event.text}, shown)
        if event.tool_calls:
            yield _chunk(
                head, event.index, {"tool_calls": [_call_piece(piece) for piece in event.tool_calls]}
            )
        if event.finish_reason is not None:
            yield _last_chunk(head, event)
    check_ended(answers)
    if with_usage:
        yield sse({**head, "choices": [], "usage": count(answers, asked.n or 1).as_usage()})
    yield DONE


def _head(exchange: Exchange, begun: Begun, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{exchange.id.removeprefix('req_')}",
        "object": kind,
        "created": exchange.created,
        "model": begun.model,
        "system_fingerprint": FINGERPRINT,
    }


def _choice(index: int, answer: Answer, asked: ChatRequest) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": answer.text or (None if answer.calls else ""),
        "refusal": None,
        "annotations": [],
    }
    if answer.calls:
        message["tool_calls"] = [_call(call) for call in answer.calls]
    return {
        "index": index,
        "message": message,
        "logprobs": _logprobs(answer.logprobs) if asked.logprobs else None,
        "finish_reason": reason(answer.finish_reason),
        **stop_reason(answer.finish_reason),
    }


def _chunk(
    head: dict[str, Any], index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None
) -> bytes:
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}
    return sse({**head, "choices": [choice]})


def _last_chunk(head: dict[str, Any], event: ServerEvent) -> bytes:
    choice: dict[str, Any] = {
        "index": event.index,
        "delta": {},
        "logprobs": None,
        "finish_reason": reason(event.finish_reason),
        **stop_reason(event.finish_reason),
    }
    return sse({**head, "choices": [choice]})


def _call(call: Call) -> dict[str, Any]:
    return {
        "id": call.id or new_id("call_"),
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _call_piece(piece: ToolCallDelta) -> dict[str, Any]:
    if not piece.name:
        return {"index": piece.index, "function": {"arguments": piece.arguments}}
    function = {"name": piece.name, "arguments": piece.arguments}
    return {"index": piece.index, "id": piece.id, "type": "function", "function": function}


def _logprobs(tokens: list[ScoredToken] | tuple[ScoredToken, ...]) -> dict[str, Any]:
    return {"content": [token_logprob(scored) for scored in tokens], "refusal": None}
