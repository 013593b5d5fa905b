"""Completions, responses, models, health, metrics: each in the shape its clients read."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from phi4.errors import ContextOverflow
from phi4.server.http.auth import digest_of
from phi4.server.worker.values import Candidate, Health, ScoredToken, ServerEvent, ToolCallDelta
from phi4.types import Usage

Serve = Callable[..., Any]


def test_completion_continues_several_prompts(serve: Serve) -> None:
    def script(index: int) -> list[ServerEvent]:
        return [
            ServerEvent(index, f" {index}"),
            ServerEvent(index, finish_reason="length", usage=Usage(5, 1)),
        ]

    serving = serve(script)
    body = serving.post("/v1/completions", {"prompt": ["a", "b"], "n": 2, "echo": True}).json()
    assert [choice["text"] for choice in body["choices"]] == ["a 0", "a 1", "b 2", "b 3"]
    assert body["object"] == "text_completion" and body["id"].startswith("cmpl-")
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (10, 4)
    assert serving.client.options[0].max_new_tokens == 16
    events = serving.post(
        "/v1/completions", {"prompt": ["a", "b"], "n": 2, "echo": True, "stream": True}
    ).events()
    for index, text in enumerate(["a 0", "a 1", "b 2", "b 3"]):
        pieces = [choice for event in events[:-1] for choice in event["choices"] if choice["index"] == index]
        assert "".join(piece["text"] for piece in pieces) == text
        assert [piece["finish_reason"] for piece in pieces if piece["finish_reason"]] == ["length"]


def test_completion_logprobs_have_their_older_form(serve: Serve) -> None:
    def script(index: int) -> list[ServerEvent]:
        tokens = [Candidate(1, "ab", b"ab", -0.5), Candidate(2, "c", b"c", -1.0)]
        events = [ServerEvent(index, t.text, logprobs=(ScoredToken(t, (t,)),)) for t in tokens]
        return [*events, ServerEvent(index, finish_reason="stop", usage=Usage(1, 2))]

    serving = serve(script)
    whole = serving.post("/v1/completions", {"prompt": "x", "logprobs": 1}).json()["choices"][0]["logprobs"]
    assert whole == {
        "tokens": ["ab", "c"],
        "token_logprobs": [-0.5, -1.0],
        "top_logprobs": [{"ab": -0.5}, {"c": -1.0}],
        "text_offset": [0, 2],
    }
    events = serving.post("/v1/completions", {"prompt": "x", "logprobs": 1, "stream": True}).events()
    shown = [choice["logprobs"] for event in events[:-1] for choice in event["choices"]]
    assert [offset for found in shown for offset in found["text_offset"]] == [0, 2]


def test_response_has_openais_shape_and_is_kept(serve: Serve) -> None:
    serving = serve()
    body = serving.post("/v1/responses", {"input": "hi", "metadata": {"a": "b"}}).json()
    assert (body["object"], body["status"], body["model"]) == ("response", "completed", "nano")
    (item,) = body["output"]
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
    assert item["content"] == [
        {"type": "output_text", "text": "Hello there", "annotations": [], "logprobs": []}
    ]
    assert body["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 9,
    }
    path = f"/v1/responses/{body['id']}"
    assert serving.get(path).json() == body
    assert serving.send("DELETE", path).json() == {"id": body["id"], "object": "response", "deleted": True}
    assert serving.get(path).status == 404


def test_next_response_continues_the_last(serve: Serve) -> None:
    serving = serve()
    first = serving.post("/v1/responses", {"input": "hi", "instructions": "be brief"}).json()
    second = serving.post("/v1/responses", {"input": "and?", "previous_response_id": first["id"]})
    assert second.status == 200 and second.json()["previous_response_id"] == first["id"]
    turns = serving.client.requests[-1].messages
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert turns[1]["content"] == [{"type": "text", "text": "Hello there"}]
    unknown = serving.post("/v1/responses", {"input": "x", "previous_response_id": "resp_x"})
    assert unknown.status == 404 and unknown.error["code"] == "response_not_found"


def test_response_that_shall_not_be_kept_is_not(serve: Serve) -> None:
    serving = serve()
    body = serving.post("/v1/responses", {"input": "hi", "store": False}).json()
    assert serving.get(f"/v1/responses/{body['id']}").status == 404


CALL = [
    ToolCallDelta(0, "call_a", "f", '{"a"'),
    ToolCallDelta(0, arguments=": 1}"),
    ToolCallDelta(1, "call_b", "g", "{}"),
]
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}


def test_events_of_a_response_build_its_final_body(serve: Serve, script: Any) -> None:
    serving = serve(script("He", "llo", calls=CALL, reason="tool_calls"))
    events = serving.post("/v1/responses", {"input": "hi", "stream": True, "tools": [TOOL]}).events()
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    last = events[-1]["response"]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert last["output"] == done
    assert [item["type"] for item in done] == ["message", "function_call", "function_call"]
    assert (done[1]["arguments"], done[1]["call_id"]) == ('{"a": 1}', "call_a")
    assert [event["output_index"] for event in events if "output_index" in event] == sorted(
        event["output_index"] for event in events if "output_index" in event
    )
    whole = serving.post("/v1/responses", {"input": "hi", "tools": [TOOL]}).json()
    assert [{**item, "id": ""} for item in whole["output"]] == [{**item, "id": ""} for item in done]
    assert whole["tools"][0]["name"] == "f" and whole["tool_choice"] == "auto"


@pytest.mark.parametrize("reason", ["length", "repetition"])
def test_cut_response_is_incomplete(serve: Serve, script: Any, reason: str) -> None:
    serving = serve(script("Hel", reason=reason))
    body = serving.post("/v1/responses", {"input": "hi"}).json()
    assert body["status"] == body["output"][0]["status"] == "incomplete"
    assert body["incomplete_details"] == {"reason": "max_output_tokens"}
    assert (
        serving.post("/v1/responses", {"input": "hi", "stream": True}).events()[-1]["type"]
        == "response.incomplete"
    )


@pytest.mark.parametrize("strict", [True, False])
def test_strict_goes_down_and_comes_back(serve: Serve, strict: bool) -> None:
    serving = serve()
    form = {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": strict}
    asked = {"input": "hi", "tools": [{**TOOL, "strict": strict}], "text": {"format": form}}
    body = serving.post("/v1/responses", asked).json()
    assert body["tools"][0]["strict"] is strict and body["text"]["format"] == form
    request = serving.client.requests[-1]
    assert request.tools[0]["function"]["strict"] is strict
    assert request.response_format["json_schema"]["strict"] is strict


@pytest.mark.parametrize("stream", [False, True])
def test_cut_call_is_incomplete_and_left_out_of_what_follows(serve: Serve, script: Any, stream: bool) -> None:
    pieces = [ToolCallDelta(0, "call_a", "f", "{}"), ToolCallDelta(1, "call_b", "f", '{"a')]
    serving = serve(script(calls=pieces, reason="length"))
    answered = serving.post("/v1/responses", {"input": "hi", "tools": [TOOL], "stream": stream})
    body = answered.events()[-1]["response"] if stream else answered.json()
    assert [item["status"] for item in body["output"]] == ["completed", "incomplete"]
    again = serving.post("/v1/responses", {"input": "go on", "previous_response_id": body["id"]})
    assert again.status == 200
    turns = serving.client.requests[-1].messages
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert [call["id"] for call in turns[1]["tool_calls"]] == ["call_a"]


def test_call_that_is_whole_when_the_answer_is_cut_is_completed(serve: Serve, script: Any) -> None:
    serving = serve(script(calls=CALL[:2], reason="length"))
    body = serving.post("/v1/responses", {"input": "hi", "tools": [TOOL]}).json()
    assert (body["status"], body["output"][0]["status"]) == ("incomplete", "completed")


def test_input_items_are_listed_and_can_be_referred_to(serve: Serve) -> None:
    serving = serve()
    own = {"id": "mine", "role": "user", "content": "first"}
    first = serving.post("/v1/responses", {"input": [own, {"role": "user", "content": "second"}]}).json()
    path = f"/v1/responses/{first['id']}/input_items"
    listed = serving.get(path).json()
    assert [item["content"] for item in listed["data"]] == ["second", "first"]
    assert (listed["first_id"], listed["last_id"]) == (listed["data"][0]["id"], "mine")
    assert (listed["object"], listed["has_more"]) == ("list", False)
    assert serving.get(f"{path}?order=asc").json()["data"] == listed["data"][::-1]
    refused = serving.get(f"{path}?order=up")
    assert (refused.status, refused.error["param"]) == (400, "order")
    assert serving.get("/v1/responses/resp_x/input_items").status == 404
    told = [
        {"type": "item_reference", "id": "mine"},
        {"id": first["output"][0]["id"]},
        {"role": "user", "content": "and?"},
    ]
    second = serving.post("/v1/responses", {"input": told}).json()
    turns = serving.client.requests[-1].messages
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert turns[1]["content"] == [{"type": "text", "text": "Hello there"}]
    kept = serving.get(f"/v1/responses/{second['id']}/input_items?order=asc").json()["data"]
    assert kept[0]["content"] == "first" and kept[1] == first["output"][0]


def test_plain_question_is_listed_as_an_item(serve: Serve) -> None:
    serving = serve()
    body = serving.post("/v1/responses", {"input": "hi"}).json()
    (item,) = serving.get(f"/v1/responses/{body['id']}/input_items").json()["data"]
    assert item.pop("id").startswith("msg_")
    assert item == {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}


def test_items_of_another_key_are_not_there(serve: Serve) -> None:
    serving = serve(key_digests=(digest_of("a"), digest_of("b")))
    asked = {"input": [{"id": "mine", "role": "user", "content": "secret"}]}
    refer = {"input": [{"type": "item_reference", "id": "mine"}]}

    def post(key: str, body: Any) -> Any:
        return serving.post("/v1/responses", body, headers=[(b"authorization", f"Bearer {key}".encode())])

    assert post("a", asked).status == post("a", refer).status == 200
    refused = post("b", refer)
    assert (refused.status, refused.error["param"]) == (400, "input[0].id")


def test_response_that_has_ended_cannot_be_cancelled(serve: Serve) -> None:
    serving = serve()
    body = serving.post("/v1/responses", {"input": "hi"}).json()
    refused = serving.post(f"/v1/responses/{body['id']}/cancel")
    assert (refused.status, refused.error["code"]) == (400, "invalid_request")
    assert "background" in refused.error["message"]
    assert serving.post("/v1/responses/resp_x/cancel").status == 404
    assert serving.get(f"/v1/responses/{body['id']}").json() == body


def test_response_that_says_nothing_is_an_empty_message(serve: Serve, script: Any) -> None:
    body = serve(script()).post("/v1/responses", {"input": "hi"}).json()
    assert body["output"][0]["content"][0]["text"] == ""


def test_response_that_breaks_off_says_so_in_its_last_event(serve: Serve) -> None:
    serving = serve(lambda index: [ServerEvent(index, "Hel"), RuntimeError("secret")])
    last = serving.post("/v1/responses", {"input": "hi", "stream": True}).events()[-1]
    assert last.get("type") == "response.failed" and last["response"]["status"] == "failed"
    assert last["response"]["error"]["code"] == "server_error" and "secret" not in str(last)
    assert serving.get(f"/v1/responses/{last['response']['id']}").status == 404


def test_models_are_listed_with_their_adapters(serve: Serve) -> None:
    serving = serve(served_names=("org/phi",), adapters=(("legal", "adapters-legal"),))
    listed = serving.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == ["org/phi", "legal"]
    assert listed["data"][1]["parent"] == "org/phi" and "adapters-legal" not in str(listed)
    one = serving.get("/v1/models/org/phi")
    assert one.json() == listed["data"][0] and one.json()["object"] == "model"
    assert serving.get("/v1/models/other").status == 404


@pytest.mark.parametrize(
    ("route", "body", "param"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}, "messages"),
        ("/v1/responses", {"input": "x"}, "input"),
        ("/v1/completions", {"prompt": "x"}, "prompt"),
    ],
)
def test_what_is_too_long_is_named_by_its_field(serve: Serve, route: str, body: Any, param: str) -> None:
    serving = serve()
    serving.client.refusal = ContextOverflow("the prompt takes at least 9 tokens")
    refused = serving.post(route, body)
    assert (refused.status, refused.error["code"]) == (400, "context_length_exceeded")
    assert refused.error["param"] == param


def test_the_length_told_is_the_one_that_holds(serve: Serve) -> None:
    for limits, length, answer in (
        ({}, 4096, 4095),
        ({"max_prompt_tokens": 100, "max_new_tokens": 7}, 100, 7),
    ):
        serving = serve(**limits)
        (entry,) = serving.get("/v1/models").json()["data"]
        assert (entry["max_model_len"], entry["max_new_tokens"]) == (length, answer)
        assert serving.post("/tokenize", {"prompt": "a"}).json()["max_model_len"] == length


def test_tokens_are_counted(serve: Serve) -> None:
    body = serve().post("/tokenize", {"prompt": "a b c"}).json()
    assert body == {"count": 3, "max_model_len": 4096, "tokens": [5, 6, 7]}


@pytest.mark.parametrize("state", ["starting", "restarting", "failed", "draining", "stopped"])
def test_readiness_is_what_the_engine_says(serve: Serve, state: Any) -> None:
    serving = serve()
    assert serving.get("/health/ready").status == 200
    serving.client.health_found = Health(state)
    refused = serving.get("/health/ready")
    assert (
        refused.status == 503 and refused.json()["status"] == state and refused.header("retry-after") == "1"
    )
    assert serving.get("/health/live").status == 200


def test_engine_that_does_not_answer_is_not_ready(serve: Serve) -> None:
    serving = serve()
    serving.client.health_found = Health("ready", answered_ms=None)
    assert serving.get("/health/ready").status == 503


def test_metrics_have_vllms_names_and_count_answers(serve: Serve, script: Any) -> None:
    serving = serve(script("a", "b", reason="length"))
    serving.chat(n=2)
    text = serving.get("/metrics").body.decode()
    for line in (
        'vllm:num_requests_running{model_name="nano"} 1.0',
        'vllm:num_requests_waiting{model_name="nano"} 2.0',
        'vllm:kv_cache_usage_perc{model_name="nano"} 0.25',
        'phi4:kept_prefixes_perc{model_name="nano"} 0.5',
        'vllm:prompt_tokens_total{model_name="nano"} 12.0',
        'vllm:request_success_total{finished_reason="length",model_name="nano"} 2.0',
        'vllm:time_to_first_token_seconds_count{model_name="nano"} 1.0',
        'vllm:e2e_request_latency_seconds_count{model_name="nano"} 1.0',
        'vllm:inter_token_latency_seconds_count{model_name="nano"} 4.0',
        'vllm:request_prompt_tokens_sum{model_name="nano"} 14.0',
    ):
        assert line in text, line


def test_time_in_the_queue_is_the_wait_for_a_turn_and_the_one_in_the_engine(
    serve: Serve, script: Any
) -> None:
    serving = serve(script("a", waited_s=5.0))  # and 0.1 s in the engine, see `says`
    serving.chat()
    text = serving.get("/metrics").body.decode()
    found = re.search(r"^vllm:request_queue_time_seconds_sum{.*} (\S+)$", text, re.MULTILINE)
    assert found is not None and float(found[1]) == pytest.approx(5.1)


def test_labels_of_metrics_are_never_what_a_client_made_up(serve: Serve) -> None:
    serving = serve()
    for number in range(20):
        serving.chat(model=f"made-up-{number}")
    assert "made-up" not in serving.get("/metrics").body.decode()


def test_version_is_told(serve: Serve) -> None:
    assert set(serve().get("/version").json()) == {"version"}
