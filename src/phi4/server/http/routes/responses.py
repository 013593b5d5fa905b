"""`/v1/responses`: OpenAI's newer route for the same answers, with items in place of messages.

A response is kept for a while unless the client says `store: false`, so that the next request can name it in
`previous_response_id`; see `phi4.server.http.stored` for how long and how much.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from phi4.server.http.answers import Answer, check_ended, count
from phi4.server.http.auth import key_name
from phi4.server.http.errors import InvalidField
from phi4.server.http.exchange import Begun, Exchange, Service
from phi4.server.http.openapi import answer_of, body_of
from phi4.server.http.routes.response_items import OutputItems, item_list, with_ids
from phi4.server.http.schemas.items import to_messages
from phi4.server.http.schemas.responses import ResponsesRequest
from phi4.server.http.schemas.tools import checked_tools
from phi4.server.http.streaming import sse, unless_gone

_ORDER = {"name": "order", "in": "query", "schema": {"type": "string", "enum": ["asc", "desc"]}}
_ORDERED = {"parameters": [_ORDER]}


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the routes to an app."""

    @app.post("/v1/responses", **body_of(ResponsesRequest, streams=True))
    async def responses(request: Request) -> Response:
        """Answer a conversation given as items."""
        exchange = Exchange(service, request)
        asked = await exchange.json(ResponsesRequest)
        model = service.models.find(asked.model)
        before = asked.previous_response_id
        messages = [*service.stored.find(exchange.key, before).messages] if before else []
        items = asked.items(partial(service.stored.find_item, exchange.key))
        messages += asked.messages(items)
        begun = await exchange.begin(
            asked.prepare(messages, model.adapter), asked.options(exchange.key), model
        )
        growing = GrowingResponse(exchange, begun, asked, with_ids(items), messages)
        if asked.stream:
            return exchange.stream(growing.stream())
        return JSONResponse(await unless_gone(request, growing.whole()))

    @app.get("/v1/responses/{response_id}", **answer_of())
    async def kept(request: Request, response_id: str) -> Response:
        """A response that was kept."""
        return JSONResponse(service.stored.find(key_name(request.scope), response_id).body)

    @app.delete("/v1/responses/{response_id}", **answer_of())
    async def forget(request: Request, response_id: str) -> Response:
        """Forget one before its time."""
        service.stored.delete(key_name(request.scope), response_id)
        return JSONResponse({"id": response_id, "object": "response", "deleted": True})

    @app.get("/v1/responses/{response_id}/input_items", **answer_of(), openapi_extra=_ORDERED)
    async def input_items(request: Request, response_id: str) -> Response:
        """What a response was asked with, all of it; the last first, unless `order` is asc."""
        items = service.stored.find(key_name(request.scope), response_id).items
        return JSONResponse(item_list(items, request.query_params.get("order")))

    @app.post("/v1/responses/{response_id}/cancel", **answer_of())
    async def cancel(request: Request, response_id: str) -> Response:
        """Refused: what is kept has ended, and a client ends what has not by going away."""
        service.stored.find(key_name(request.scope), response_id)
        raise InvalidField(
            "response_id", "names a response that has ended; only background ones are cancelled"
        )


class GrowingResponse:
    """One response while it comes.

    Args:
        exchange: The request.
        begun: Its answer.
        asked: Its body.
        items: Its input.
        messages: All turns up to it, without the instructions.
    """

    def __init__(
        self,
        exchange: Exchange,
        begun: Begun,
        asked: ResponsesRequest,
        items: list[dict[str, Any]],
        messages: list[dict[str, Any]],
    ) -> None:
        self._exchange = exchange
        self._begun = begun
        self._asked = asked
        self._input = items
        self._messages = messages
        self._items = OutputItems()
        self._answer = Answer()
        self._sequence = -1

    async def whole(self) -> dict[str, Any]:
        """The finished response."""
        async for event in self._begun.events:
            self._answer.add(event)
            self._items.add(event)
        return self._finished()[1]

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The response as events; its end, whichever it is, is the last of them."""
        try:
            yield self._event({"type": "response.created", "response": self._body("in_progress")})
            yield self._event({"type": "response.in_progress", "response": self._body("in_progress")})
            async for event in self._begun.events:
                self._answer.add(event)
                for told in self._items.add(event):
                    yield self._event(told)
            last, body = self._finished()
            for told in last:
                yield self._event(told)
            yield self._event({"type": f"response.{body['status']}", "response": body})
        except Exception as error:
            problem = self._exchange.problem(error)
            failed = self._body("failed")
            failed["error"] = {"code": "server_error", "message": f"{problem.code}: {problem.message}"}
            yield self._event({"type": "response.failed", "response": failed})

    def _event(self, told: dict[str, Any]) -> bytes:
        self._sequence += 1
        return sse({**told, "sequence_number": self._sequence}, told["type"])

    def _finished(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The last events, and the body, which is kept if the client wants that."""
        check_ended([self._answer])
        cut = self._answer.finish_reason not in ("stop", "tool_calls")
        last = self._items.close("incomplete" if cut else "completed")
        body = self._body("incomplete" if cut else "completed")
        body["usage"] = _usage(self._answer)
        if cut:
            body["incomplete_details"] = {"reason": "max_output_tokens"}
        if self._asked.store is not False:
            turns = [*self._messages, *to_messages(self._items.output)]
            self._exchange.service.stored.keep(self._exchange.key, body, self._input, turns)
        return last, body

    def _body(self, status: str) -> dict[str, Any]:
        asked = self._asked
        return {
            "id": f"resp_{self._exchange.id.removeprefix('req_')}",
            "object": "response",
            "created_at": self._exchange.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "max_tool_calls": None,
            "model": self._begun.model,
            "output": [dict(item) for item in self._items.output],
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": asked.previous_response_id,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": asked.store is not False,
            "temperature": asked.temperature or 0.0,
            "text": _text(asked),
            "tool_choice": _tool_choice(asked),
            "tools": _tools(asked),
            "top_logprobs": asked.top_logprobs or 0,
            "top_p": 1.0 if asked.top_p is None else asked.top_p,
            "truncation": asked.truncation or "disabled",
            "usage": None,
            "user": asked.user,
            "metadata": asked.metadata or {},
        }


def _usage(answer: Answer) -> dict[str, Any]:
    found = count([answer])
    return {
        "input_tokens": found.prompt,
        "input_tokens_details": {"cached_tokens": found.cached},
        "output_tokens": found.completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": found.total,
    }


def _text(asked: ResponsesRequest) -> dict[str, Any]:
    form = asked.text.format if asked.text else None
    return {"format": form.model_dump(by_alias=True, exclude_none=True) if form else {"type": "text"}}


def _tool_choice(asked: ResponsesRequest) -> Any:
    choice = asked.tool_choice or "auto"
    return choice if isinstance(choice, str) else {"type": "function", "name": choice["function"]["name"]}


def _tools(asked: ResponsesRequest) -> list[dict[str, Any]]:
    """Tools in this route's flat form, whichever form they came in."""
    plain: dict[str, Any] = {"description": None, "parameters": {}, "strict": False}
    return [{"type": "function", **plain, **tool["function"]} for tool in checked_tools(asked.tools or ())]
