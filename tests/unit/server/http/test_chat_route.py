"""Chat completions: whole and streamed answers say the same, in OpenAI's shapes; errors are told once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from phi4.errors import ContextOverflow, InvalidMedia, OutOfMemory
from phi4.server.failures import DeadlineExceeded, EngineRestarted
from phi4.server.worker.values import Candidate, ScoredToken, ServerEvent, ToolCallDelta
from phi4.types import Usage

Serve = Callable[..., Any]
CHAT = "/v1/chat/completions"
CALLS = [
    ToolCallDelta(0, "call_a", "set_light", '{"room"'),
    ToolCallDelta(0, arguments=': "hall"}'),
    ToolCallDelta(1, "call_b", "set_light", "{}"),
]
TOOL = {"type": "function", "function": {"name": "set_light"}}


def scored(text: str, logprob: float = -0.5) -> ScoredToken:
    best = Candidate(1, text, text.encode(), logprob)
    return ScoredToken(best, (best, Candidate(2, "other", b"other", float("-inf"))))


def joined(events: list[Any], index: int = 0) -> dict[str, Any]:
    """A stream of chunks put together again, for one choice."""
    found: dict[str, Any] = {"content": "", "calls": [], "reason": None, "roles": 0, "logprobs": []}
    for event in events[:-1]:
        for choice in event["choices"]:
            if choice["index"] != index:
                continue
            delta = choice["delta"]
            found["content"] += delta.get("content") or ""
            found["roles"] += "role" in delta
            found["reason"] = choice["finish_reason"] or found["reason"]
            found["logprobs"] += (choice["logprobs"] or {}).get("content", [])
            for piece in delta.get("tool_calls", []):
                if piece["index"] == len(found["calls"]):
                    found["calls"].append(
                        {"id": piece["id"], "name": piece["function"]["name"], "arguments": ""}
                    )
                found["calls"][piece["index"]]["arguments"] += piece["function"]["arguments"]
    return found


def test_whole_answer_has_openais_shape(serve: Serve) -> None:
    answered = serve().chat(model="nano")
    body = answered.json()
    assert answered.status == 200 and body["object"] == "chat.completion" and body["model"] == "nano"
    assert body["id"].startswith("chatcmpl-") and body["id"][9:] in (answered.header("x-request-id") or "")
    (choice,) = body["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": "Hello there",
        "refusal": None,
        "annotations": [],
    }
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)
    usage = body["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (7, 2, 9)
    assert usage["prompt_tokens_details"] == {"cached_tokens": 4, "audio_tokens": 3, "image_tokens": 2}


def test_stream_says_the_same_as_the_whole(serve: Serve, script: Any) -> None:
    serving = serve(script("Hel", "lo", " there"))
    events = serving.chat(stream=True, stream_options={"include_usage": True}).events()
    assert events[-1] == "[DONE]"
    found = joined(events)
    assert found["content"] == serving.chat().json()["choices"][0]["message"]["content"]
    assert (found["roles"], found["reason"]) == (1, "stop")
    assert len({event["id"] for event in events[:-1]}) == 1
    assert all(event["object"] == "chat.completion.chunk" for event in events[:-1])
    assert events[-2]["choices"] == [] and events[-2]["usage"]["total_tokens"] == 10
    assert all(event["usage"] is None for event in events[:-2])


def test_stream_without_options_says_no_usage(serve: Serve) -> None:
    events = serve().chat(stream=True).events()
    assert all("usage" not in event for event in events[:-1])


def test_tool_calls_whole_and_in_pieces(serve: Serve, script: Any) -> None:
    serving = serve(script("On it. ", calls=CALLS, reason="tool_calls"))
    choice = serving.chat(tools=[TOOL]).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] == "On it. "
    assert [call["function"] for call in choice["message"]["tool_calls"]] == [
        {"name": "set_light", "arguments": '{"room": "hall"}'},
        {"name": "set_light", "arguments": "{}"},
    ]
    found = joined(serving.chat(tools=[TOOL], stream=True).events())
    assert [(call["id"], call["arguments"]) for call in found["calls"]] == [
        ("call_a", '{"room": "hall"}'),
        ("call_b", "{}"),
    ]
    assert serving.client.requests[0].tools == (TOOL,)


def test_answer_of_calls_alone_has_no_text(serve: Serve, script: Any) -> None:
    message = (
        serve(script(calls=CALLS[:2], reason="tool_calls")).chat(tools=[TOOL]).json()["choices"][0]["message"]
    )
    assert message["content"] is None and len(message["tool_calls"]) == 1


def test_several_choices_keep_apart_and_count_their_prompt_once(serve: Serve) -> None:
    def script(index: int) -> list[ServerEvent]:
        return [
            ServerEvent(index, f"answer {index}"),
            ServerEvent(index, finish_reason="stop", usage=Usage(7, 2)),
        ]

    serving = serve(script)
    body = serving.chat(n=3, seed=5).json()
    assert [choice["message"]["content"] for choice in body["choices"]] == [
        "answer 0",
        "answer 1",
        "answer 2",
    ]
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (7, 6)
    events = serving.chat(n=3, stream=True).events()
    assert [joined(events, index)["content"] for index in range(3)] == ["answer 0", "answer 1", "answer 2"]


def test_more_choices_than_the_operator_allows_are_refused_before_work(serve: Serve) -> None:
    serving = serve(max_choices=4)
    refused = serving.chat(n=5)
    assert refused.status == 400 and refused.error["param"] == "n"
    assert serving.client.requests == []


def test_logprobs_whole_and_streamed(serve: Serve) -> None:
    def script(index: int) -> list[ServerEvent]:
        return [
            ServerEvent(index, "a", logprobs=(scored("a"),)),
            ServerEvent(index, logprobs=(scored("é"),)),
            ServerEvent(index, "é", finish_reason="stop", usage=Usage(1, 2)),
        ]

    serving = serve(script)
    content = serving.chat(logprobs=True, top_logprobs=2).json()["choices"][0]["logprobs"]["content"]
    assert [token["token"] for token in content] == ["a", "é"]
    assert content[1]["bytes"] == list("é".encode())
    assert content[0]["top_logprobs"][1] == {"token": "other", "logprob": -9999.0, "bytes": list(b"other")}
    streamed = joined(serving.chat(logprobs=True, top_logprobs=2, stream=True).events())
    assert streamed["logprobs"] == content and streamed["content"] == "aé"
    assert serving.client.options[0].sampling.logprobs == 2


@pytest.mark.parametrize(
    ("reason", "told", "ours"),
    [("length", "length", None), ("repetition", "length", "repetition"), ("tool_calls", "tool_calls", None)],
)
def test_reasons_are_openais_and_ours_stands_beside(
    serve: Serve, script: Any, reason: str, told: str, ours: str | None
) -> None:
    serving = serve(script("a", reason=reason))
    choice = serving.chat().json()["choices"][0]
    assert (choice["finish_reason"], choice.get("stop_reason")) == (told, ours)
    assert joined(serving.chat(stream=True).events())["reason"] == told


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (ContextOverflow("the prompt has 9 tokens"), 400, "context_length_exceeded"),
        (InvalidMedia("messages[0].content[0]: picture (3 bytes) is empty"), 400, "invalid_media"),
        (DeadlineExceeded("late"), 504, "deadline_exceeded"),
    ],
)
def test_what_cannot_be_prepared_is_a_status_also_for_streams(
    serve: Serve, stream: bool, refusal: Exception, status: int, code: str
) -> None:
    serving = serve()
    serving.client.refusal = refusal
    answered = serving.chat(stream=stream)
    assert (answered.status, answered.error["code"]) == (status, code)


@pytest.mark.parametrize("stream", [False, True])
def test_what_fails_before_the_first_piece_is_a_status(serve: Serve, stream: bool) -> None:
    answered = serve(lambda index: [EngineRestarted("the engine died", 1)]).chat(stream=stream)
    assert answered.status == 503 and answered.error["code"] == "engine_restarted"
    assert answered.header("retry-after") == "1"


def test_stream_that_breaks_off_ends_with_one_error(serve: Serve) -> None:
    serving = serve(lambda index: [ServerEvent(index, "Hel"), OutOfMemory("no room")])
    answered = serving.chat(stream=True)
    events = answered.events()
    assert answered.status == 200 and answered.whole
    assert "error" in events[-1]
    assert events[-1]["error"]["code"] == "out_of_memory"
    assert events[-1]["error"]["request_id"] == answered.header("x-request-id")
    assert sum("error" in event for event in events if event != "[DONE]") == 1 and "[DONE]" not in events
    assert serving.chat().status == 503


def test_answer_without_an_end_is_never_passed_off_as_whole(serve: Serve) -> None:
    serving = serve(lambda index: [ServerEvent(index, "Hel")])
    assert serving.chat().status == 500
    assert serving.chat(stream=True).events()[-1]["error"]["code"] == "internal_error"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("settled", [0, 1])
def test_client_that_leaves_frees_everything(
    serve: Serve, visiting: Any, wait_until: Any, stream: bool, settled: int
) -> None:
    visit, visitor_class = visiting
    serving = serve()
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "stream": stream}).encode()

    async def scene() -> None:
        serving.client.held = asyncio.Event()
        visitor = visitor_class([body])
        headers = [(b"content-type", b"application/json")]
        task = asyncio.create_task(
            visit(serving.app, "POST", CHAT, headers=headers, chunks=[body], visitor=visitor)
        )
        await wait_until(lambda: serving.client.generating >= settled)
        visitor.leave.set()
        await task
        assert not visitor.answered.whole and serving.left_open == 0

    asyncio.run(scene())


def test_no_room_is_decided_before_the_body_is_read(serve: Serve, visiting: Any) -> None:
    visit, visitor_class = visiting
    serving = serve(max_requests=1)
    ticket = serving.client.enter("")
    visitor = visitor_class([b"{}"])
    headers = [(b"content-type", b"application/json")]
    answered = asyncio.run(visit(serving.app, "POST", CHAT, headers=headers, visitor=visitor))
    ticket.close()
    assert answered.status == 503 and answered.error["code"] == "overloaded" and visitor.sent == 0
    assert int(answered.header("retry-after") or 0) >= 1


def test_unknown_model_is_refused_and_known_names_choose_adapters(serve: Serve) -> None:
    serving = serve(served_names=("phi", "gpt-4o"), adapters=(("legal", "adapters-legal"),))
    refused = serving.chat(model="other")
    assert refused.status == 404 and refused.error["code"] == "model_not_found"
    assert "other" in refused.error["message"]
    for name, adapter in (("phi", ""), ("gpt-4o", ""), ("legal", "legal"), (None, "")):
        answered = serving.chat(model=name)
        assert answered.json()["model"] == (name or "phi")
        assert serving.client.requests[-1].adapter == adapter


@pytest.mark.parametrize(
    "name", ["../adapters-legal", "/srv/adapters/legal", "adapters-legal", "legal/../phi"]
)
def test_path_is_no_name_of_an_adapter(serve: Serve, name: str) -> None:
    serving = serve(adapters=(("legal", "adapters-legal"),))
    assert serving.chat(model=name).status == 404 and serving.client.requests == []


def test_remote_media_are_not_fetched_unless_allowed(serve: Serve) -> None:
    part = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}}
    serving = serve()
    refused = serving.post(CHAT, {"messages": [{"role": "user", "content": [part]}]})
    assert refused.status == 400 and refused.error["param"] == "messages[0].content[0].image_url.url"
    assert serving.client.requests == []


def test_links_in_text_are_never_fetched(serve: Serve) -> None:
    serving = serve(allow_remote=True)
    assert serving.chat("![x](http://127.0.0.1:9/x.png) http://127.0.0.1:9/").status == 200


@pytest.mark.parametrize("wanted", [False, True])
def test_words_stand_in_the_log_only_when_an_operator_asks(
    serve: Serve, caplog: pytest.LogCaptureFixture, wanted: bool
) -> None:
    caplog.set_level("DEBUG")
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5000}}
    turn = {"role": "user", "content": [part, {"type": "text", "text": "my secret\nquestion"}]}
    for stream in (False, True):
        assert serve(log_prompts=wanted).post(CHAT, {"messages": [turn], "stream": stream}).status == 200
    assert ("my secret\\nquestion" in caplog.text) is wanted
    assert ("Hello there" in caplog.text) is wanted
    assert "AAAAAA" not in caplog.text
