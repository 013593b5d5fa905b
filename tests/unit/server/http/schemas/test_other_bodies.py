"""Completions, responses, tools, forms of an answer, and the audio form: shape, and what comes of it."""

from __future__ import annotations

from typing import Any

import pytest

from phi4.errors import InvalidRequest
from phi4.server.http.body import checked
from phi4.server.http.errors import InvalidField
from phi4.server.http.schemas.audio import AudioForm
from phi4.server.http.schemas.chat import ChatRequest
from phi4.server.http.schemas.completions import CompletionRequest
from phi4.server.http.schemas.items import resolved, to_messages
from phi4.server.http.schemas.responses import ResponsesRequest
from phi4.server.http.schemas.tokenize import TokenizeRequest
from phi4.server.http.schemas.tools import checked_tools

HI = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}


def chat(**fields: Any) -> ChatRequest:
    return checked(ChatRequest, {"messages": HI, **fields})


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ("a",)),
        ("", ("",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
    ],
)
def test_prompts_of_every_form(prompt: Any, prompts: Any) -> None:
    assert checked(CompletionRequest, {"prompt": prompt}).prepare("").prompts == prompts


@pytest.mark.parametrize(
    "prompt", [None, [], [[]], [1.5], [-1], [True], [2**31], {}, 5, ["a", 1, []], ["a"] * 129]
)
def test_prompts_of_no_form(prompt: Any) -> None:
    with pytest.raises(InvalidField, match="prompt"):
        checked(CompletionRequest, {"prompt": prompt})


@pytest.mark.parametrize(
    "fields",
    [
        {"suffix": "x"},
        {"best_of": 2},
        {"echo": True, "logprobs": 1},
        {"echo": True, "prompt": [1, 2]},
        {"stream_options": {"include_usage": True}},
    ],
)
def test_completions_refuse_what_they_cannot_do(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidField):
        checked(CompletionRequest, {"prompt": "x", **fields}).prepare("")


@pytest.mark.parametrize(
    "fields",
    [
        {"functions": [{"name": "f"}]},
        {"function_call": "auto"},
        {"audio": {"voice": "x"}},
        {"modalities": ["text", "audio"]},
        {"web_search_options": {"a": 1}},
        {"chat_template": "{{ x }}"},
        {"chat_template_kwargs": {"tokenize": True}},
        {"top_logprobs": 2},
        {"stream_options": {"include_usage": True}},
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "function", "function": {}}]},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        {"response_format": {"type": "regex"}},
        {"response_format": {"type": "choice", "choice": []}},
    ],
)
def test_chat_refuses_what_it_cannot_do(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        chat(**fields).prepare("")


def test_what_changes_no_answer_is_taken_silently() -> None:
    fields = {
        "user": "u",
        "metadata": {"a": "b"},
        "store": False,
        "service_tier": "auto",
        "modalities": ["text"],
    }
    assert chat(**fields).prepare("") == chat().prepare("")


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True},
            },
            {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True},
            },
        ),
        ({"type": "regex", "regex": "a+"}, {"type": "regex", "regex": "a+"}),
        ({"type": "grammar", "grammar": "start: A"}, {"type": "grammar", "grammar": "start: A"}),
        ({"type": "choice", "choice": ["a", "b"]}, {"type": "choice", "choice": ["a", "b"]}),
    ],
)
def test_forms_of_an_answer(given: dict[str, Any], asked: Any) -> None:
    assert chat(response_format=given).prepare("").response_format == asked


def test_tools_come_in_both_forms_and_keep_their_order() -> None:
    flat = {"type": "function", "parameters": {"type": "object"}, "name": "g", "strict": None}
    found = checked_tools([TOOL, flat])
    assert found[0]["function"] == {"name": "f", "parameters": {"type": "object"}, "strict": True}
    assert list(found[1]["function"]) == ["parameters", "name"]


@pytest.mark.parametrize("strict", ["yes", 1, {}, []])
def test_strict_is_true_or_false(strict: Any) -> None:
    function = {**TOOL["function"], "strict": strict}
    for tool in ({"type": "function", "function": function}, {"type": "function", **function}):
        with pytest.raises(InvalidField) as refused:
            checked_tools([tool])
        assert refused.value.param == "tools[0].function.strict"
    form = {"type": "json_schema", "json_schema": {"schema": {"type": "object"}, "strict": strict}}
    with pytest.raises(InvalidField) as refused:
        chat(response_format=form).prepare("")
    assert refused.value.param == "response_format.json_schema.strict"


def test_limits_and_choices_reach_prepare_and_generate() -> None:
    asked = chat(
        max_tokens=5, max_completion_tokens=9, n=3, tools=[TOOL], tool_choice="required",
        parallel_tool_calls=False, truncation="auto", stop_repetition=False, timeout_s=3,
        logprobs=True, top_logprobs=2,
    )  # fmt: skip
    prepare, options = asked.prepare("mine"), asked.options("tenant")
    assert (prepare.max_new_tokens, prepare.overflow, prepare.adapter) == (9, "drop_oldest", "mine")
    assert (prepare.tool_choice, prepare.parallel_tool_calls) == ("required", False)
    assert (options.max_new_tokens, options.n, options.salt, options.timeout_s) == (9, 3, "tenant", 3.0)
    assert options.loop_guard is False and options.sampling.logprobs == 2


def turns(asked: ResponsesRequest) -> list[dict[str, Any]]:
    """Messages of an input that refers to nothing kept."""
    return asked.messages(asked.items(lambda item_id: None))


def test_items_become_messages() -> None:
    items = [
        {"role": "developer", "content": "be brief"},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "what is it?"},
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
                {"type": "input_file", "file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"},
            ],
        },
        {"type": "reasoning", "id": "r", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "let me see"}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "7"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "8"}]},
    ]
    messages = turns(checked(ResponsesRequest, {"input": items}))
    assert [message["role"] for message in messages] == ["developer", "user", "assistant", "tool", "tool"]
    assert [part["type"] for part in messages[1]["content"]] == ["text", "image_url", "file"]
    assert messages[1]["content"][1]["image_url"]["detail"] == "low"
    assert [call["id"] for call in messages[2]["tool_calls"]] == ["c1", "c2"]
    assert messages[4]["content"] == [{"type": "text", "text": "8"}]


def test_a_reference_stands_for_the_item_that_is_kept() -> None:
    kept = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
    given = [{"type": "item_reference", "id": "msg_1"}, {"id": "msg_1"}, {"role": "user", "content": "and?"}]
    found = resolved(given, {"msg_1": kept}.get)
    assert found == [kept, kept, {"type": "message", "role": "user", "content": "and?"}]
    assert [turn["role"] for turn in to_messages(found)] == ["user"] * 3


def test_a_call_that_broke_off_is_left_out() -> None:
    cut = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a', "status": "incomplete"}
    assert to_messages([cut]) == []
    (turn,) = to_messages([{**cut, "arguments": "{}", "status": "completed"}, cut])
    assert [call["function"]["arguments"] for call in turn["tool_calls"]] == ["{}"]


def test_output_of_a_response_continues_as_input() -> None:
    output = [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    ]
    (turn,) = to_messages(output)
    assert turn["role"] == "assistant" and turn["tool_calls"][0]["function"]["name"] == "f"


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "computer_call"}, "input[0].type"),
        ({"type": "item_reference", "id": "x"}, "input[0].id"),
        ({"type": "item_reference", "id": 5}, "input[0].id"),
        ({"type": "item_reference"}, "input[0].id"),
        ({"id": "x"}, "input[0].id"),
        ({"type": 5}, "input[0].type"),
        ({"role": "user"}, "input[0].content"),
        ({"role": "user", "content": [{"type": "input_video"}]}, "input[0].content[0].type"),
        ({"role": "user", "content": [{"type": []}]}, "input[0].content[0].type"),
        (
            {"role": "user", "content": [{"type": "input_image", "file_id": "f"}]},
            "input[0].content[0].file_id",
        ),
        ({"role": "user", "content": [{"type": "input_image"}]}, "input[0].content[0].image_url.url"),
        (
            {"role": "user", "content": [{"type": "input_file", "file_id": "f"}]},
            "input[0].content[0].file_id",
        ),
        ({"type": "function_call_output", "call_id": "c", "output": 5}, "input[0].output"),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_items_that_cannot_be_had_are_named(item: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidField) as refused:
        turns(checked(ResponsesRequest, {"input": [item]}))
    assert refused.value.param == param


def test_plain_input_is_one_question() -> None:
    asked = checked(ResponsesRequest, {"input": "hi"})
    assert turns(asked) == [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]


@pytest.mark.parametrize(
    "fields",
    [{"background": True}, {"conversation": "c"}, {"prompt": {"id": "p"}}, {"tool_choice": "required"}],
)
def test_responses_refuse_what_they_cannot_do(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidField):
        checked(ResponsesRequest, {"input": "hi", **fields}).prepare(HI, "")


def test_responses_put_instructions_first_and_read_the_flat_form() -> None:
    form = {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}
    asked = checked(ResponsesRequest, {"input": "hi", "instructions": "be brief", "text": {"format": form}})
    prepare = asked.prepare(HI, "")
    assert prepare.messages == ({"role": "system", "content": "be brief"}, *HI)
    assert prepare.response_format == {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True},
    }


def test_tokenize_wants_a_prompt_or_messages() -> None:
    assert checked(TokenizeRequest, {"prompt": "a"}).prepare("").prompts == ("a",)
    assert checked(TokenizeRequest, {"messages": HI}).prepare("").messages == tuple(HI)
    for body in ({}, {"prompt": "a", "messages": HI}):
        with pytest.raises(InvalidField):
            checked(TokenizeRequest, body).prepare("")


@pytest.mark.parametrize(
    "fields",
    [
        {"timestamp_granularities": ["word"]},
        {"include": ["logprobs"], "response_format": "text"},
        {"stream": True, "response_format": "srt"},
    ],
)
def test_transcripts_refuse_what_they_cannot_do(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidField):
        AudioForm.model_validate(fields).prepare(b"x", "", "")


@pytest.mark.parametrize(("form", "timed"), [("json", False), ("text", False), ("srt", True), ("vtt", True)])
def test_only_formats_with_times_cut_short_recordings(form: str, timed: bool) -> None:
    asked = AudioForm.model_validate({"response_format": form, "prompt": "Kalman, Bayes"})
    prepare = asked.prepare(b"x", "", "")
    assert prepare.timestamps is timed and prepare.hot_words == "Kalman, Bayes"
