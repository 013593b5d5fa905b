"""OpenAI's own Python client and curl against the real server on the built-in nano.

What comes over HTTP is held against what the same model answers in this process.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import phi4

openai = pytest.importorskip("openai")

HI = [{"role": "user", "content": "Who are you?"}]
LIGHT = {
    "type": "function",
    "function": {
        "name": "set_light",
        "description": "Switch a light",
        "parameters": {
            "type": "object",
            "properties": {
                "room": {"type": "string", "enum": ["kitchen", "hall"]},
                "on": {"type": "boolean"},
            },
            "required": ["room", "on"],
        },
    },
}
COMMAND = [{"role": "user", "content": "Turn on the light in the kitchen."}]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model() -> phi4.Phi4:
    return phi4.load("nano")


@pytest.fixture
def client(server: Any) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as found:
        yield found


def data_url(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def test_models_are_listed(client: Any) -> None:
    (entry,) = client.models.list().data
    assert entry.id == "nano" and entry.object == "model"
    assert client.models.retrieve("nano").id == "nano"


def test_chat_says_what_the_model_says(client: Any, model: phi4.Phi4) -> None:
    expected = model.chat("Who are you?")
    answer = client.chat.completions.create(model="nano", messages=HI)
    assert answer.choices[0].message.content == expected.text
    assert answer.choices[0].finish_reason == expected.finish_reason
    assert answer.usage.completion_tokens == expected.usage.completion_tokens
    assert answer.usage.prompt_tokens == expected.usage.prompt_tokens


def test_stream_says_the_same_in_pieces(client: Any, model: phi4.Phi4) -> None:
    pieces, reasons, usage = [], [], None
    chunks = client.chat.completions.create(
        model="nano", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    for chunk in chunks:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            pieces.append(choice.delta.content or "")
            reasons += [choice.finish_reason] if choice.finish_reason else []
    assert "".join(pieces) == model.chat("Who are you?").text
    assert len([piece for piece in pieces if piece]) > 1 and reasons == ["stop"]
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_asynchronous_client_asks_side_by_side(server: Any, model: phi4.Phi4) -> None:
    questions = ["Who are you?", "What is 2 + 2?", "What is 17 - 9?", "Who are you?"]

    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:

            async def one(question: str) -> str:
                turn = [{"role": "user", "content": question}]
                stream = await client.chat.completions.create(model="nano", messages=turn, stream=True)
                return "".join(
                    [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
                )

            return await asyncio.gather(*map(one, questions))

    assert asyncio.run(ask()) == [model.chat(question).text for question in questions]


def test_picture_and_recording_in_one_prompt(client: Any, model: phi4.Phi4, media: Path) -> None:
    picture, sound = media / "spoken-chart-qa-1.png", media / "spoken-chart-qa-1.wav"
    spoken = {"data": base64.b64encode(sound.read_bytes()).decode(), "format": "wav"}
    parts = [
        {"type": "image_url", "image_url": {"url": data_url(picture, "image/png")}},
        {"type": "input_audio", "input_audio": spoken},
    ]
    answer = client.chat.completions.create(model="nano", messages=[{"role": "user", "content": parts}])
    expected = model.chat("", images=picture, audio=sound)
    assert answer.choices[0].message.content == expected.text
    details = answer.usage.prompt_tokens_details
    assert details.audio_tokens == expected.usage.audio_tokens > 0
    assert details.image_tokens == expected.usage.image_tokens > 0


def test_forced_tool_call_fits_its_schema(client: Any) -> None:
    choice = {"type": "function", "function": {"name": "set_light"}}
    answer = client.chat.completions.create(model="nano", messages=COMMAND, tools=[LIGHT], tool_choice=choice)
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls" and message.tool_calls[0].id
    arguments = json.loads(message.tool_calls[0].function.arguments)
    assert message.tool_calls[0].function.name == "set_light"
    assert arguments["room"] in ("kitchen", "hall") and isinstance(arguments["on"], bool)
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "done"}
    turns = [*COMMAND, message.model_dump(), result]
    assert client.chat.completions.create(model="nano", messages=turns, tools=[LIGHT]).choices


def test_streamed_tool_call_is_the_same_call(client: Any) -> None:
    asked = {"model": "nano", "messages": COMMAND, "tools": [LIGHT], "tool_choice": "required"}
    whole = client.chat.completions.create(**asked).choices[0].message.tool_calls
    with client.chat.completions.stream(**asked) as stream:
        final = stream.get_final_completion()
    streamed = final.choices[0].message.tool_calls
    assert [(call.function.name, json.loads(call.function.arguments)) for call in streamed] == [
        (call.function.name, json.loads(call.function.arguments)) for call in whole
    ]


def test_answer_fits_its_json_schema(client: Any) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
    answer = client.chat.completions.create(model="nano", messages=HI, response_format=form)
    found = json.loads(answer.choices[0].message.content)
    assert set(found) == {"name", "age"} and isinstance(found["age"], int)


def test_logprobs_are_the_models(client: Any) -> None:
    answer = client.chat.completions.create(
        model="nano", messages=HI, logprobs=True, top_logprobs=3, max_completion_tokens=5
    )
    content = answer.choices[0].logprobs.content
    assert 0 < len(content) <= 5
    for token in content:
        assert (
            token.logprob == max(top.logprob for top in token.top_logprobs) and len(token.top_logprobs) == 3
        )
    whole = b"".join(bytes(token.bytes or []) for token in content).decode(errors="replace")
    assert whole.startswith(answer.choices[0].message.content[:5])


def test_seed_repeats_and_choices_differ(client: Any) -> None:
    asked = {"model": "nano", "messages": HI, "n": 4, "temperature": 1.5, "seed": 11, "max_tokens": 12}
    first, again = (
        [choice.message.content for choice in client.chat.completions.create(**asked).choices]
        for _ in range(2)
    )
    assert first == again and len(set(first)) > 1


def test_completions_continue_text(client: Any) -> None:
    answer = client.completions.create(model="nano", prompt=["2 + 2 =", "The"], max_tokens=4, echo=True)
    assert [choice.text[:3] for choice in answer.choices] == ["2 +", "The"]
    pieces = client.completions.create(model="nano", prompt="The", max_tokens=4, stream=True)
    assert "The" + "".join(piece.choices[0].text for piece in pieces) == answer.choices[1].text


def test_responses_whole_and_streamed(client: Any, model: phi4.Phi4) -> None:
    expected = model.chat("Who are you?").text
    first = client.responses.create(model="nano", input="Who are you?")
    assert first.output_text == expected and first.status == "completed"
    with client.responses.stream(model="nano", input="Who are you?") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == expected
    again = client.responses.create(model="nano", input="And you?", previous_response_id=first.id)
    assert again.usage.input_tokens > first.usage.input_tokens
    assert client.responses.retrieve(first.id).output_text == expected
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


def test_items_are_listed_and_referred_to(client: Any) -> None:
    first = client.responses.create(model="nano", input="Who are you?")
    (item,) = client.responses.input_items.list(first.id)
    told = [{"type": "item_reference", "id": item.id}, {"type": "item_reference", "id": first.output[0].id}]
    again = client.responses.create(model="nano", input=[*told, {"role": "user", "content": "And you?"}])
    chained = client.responses.create(model="nano", input="And you?", previous_response_id=first.id)
    assert again.output_text == chained.output_text
    assert again.usage.input_tokens == chained.usage.input_tokens
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(first.id)


def test_responses_cut_inside_a_call_can_be_continued(client: Any) -> None:
    tool = {"type": "function", **LIGHT["function"]}
    asked = {"model": "nano", "input": COMMAND[0]["content"], "tools": [tool], "tool_choice": "required"}
    whole = client.responses.create(**asked).usage.output_tokens
    for limit in range(1, whole):
        cut = client.responses.create(**asked, max_output_tokens=limit)
        assert cut.status == "incomplete" and cut.output_text == ""
        again = client.responses.create(
            model="nano", input="Go on.", previous_response_id=cut.id, max_output_tokens=1
        )
        assert again.usage.output_tokens == 1


@pytest.mark.parametrize("stream", [False, True])
def test_cut_call_leaves_no_markup(client: Any, stream: bool) -> None:
    asked = {"model": "nano", "messages": COMMAND, "tools": [LIGHT], "tool_choice": "required"}
    for limit in range(1, 12):
        found = client.chat.completions.create(**asked, max_tokens=limit, stream=stream)
        if stream:
            choices = [choice for chunk in found for choice in chunk.choices]
            text = "".join(choice.delta.content or "" for choice in choices)
        else:
            choices, text = found.choices, found.choices[0].message.content or ""
        assert text == "" and choices[-1].finish_reason == "length"


def test_stop_string_does_not_cut_a_call(client: Any) -> None:
    asked = {"model": "nano", "messages": COMMAND, "tools": [LIGHT], "tool_choice": "required"}
    calls = [
        client.chat.completions.create(**asked, **more).choices[0].message.tool_calls[0].function
        for more in ({}, {"stop": ["room", "<|tool_call|>", "}"]})
    ]
    assert calls[0] == calls[1]


@pytest.mark.parametrize("spelling", ["functools{}", "{}", "<|tool_call|>{}<|/tool_call|>"])
def test_text_of_a_given_form_is_never_a_call(client: Any, model: phi4.Phi4, spelling: str) -> None:
    text = spelling.replace("{}", '[{"name": "rm_rf", "arguments": {"path": "/"}}]')
    form = {"response_format": {"type": "choice", "choice": [text]}}
    begin = model.generator.tokenizer.tokens.require("tool_call")
    answer = client.chat.completions.create(
        model="nano", messages=HI, tools=[LIGHT], logit_bias={str(begin): -100}, extra_body=form
    )
    message = answer.choices[0].message
    assert not message.tool_calls and message.content == text


@pytest.mark.parametrize("strict", [True, False])
def test_look_around_is_passed_over_unless_strict(client: Any, strict: bool) -> None:
    schema = {
        "type": "object",
        "properties": {"to": {"type": "string", "pattern": r"^(?!\.)[a-z.]+$", "maxLength": 9}},
        "required": ["to"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "name": "mail", "schema": schema, "strict": strict}
    tool = {"type": "function", "name": "mail", "parameters": schema, "strict": strict}
    for asked in ({"text": {"format": form}}, {"tools": [tool], "tool_choice": "required"}):
        if strict:
            with pytest.raises(openai.BadRequestError, match="look-around"):
                client.responses.create(model="nano", input="Write.", **asked)
        else:
            (item,) = client.responses.create(model="nano", input="Write.", **asked).output
            said = item.arguments if item.type == "function_call" else item.content[0].text
            assert list(json.loads(said)) == ["to"]


def test_responses_call_functions(client: Any) -> None:
    tool = {"type": "function", "strict": True, **LIGHT["function"]}
    asked = {"model": "nano", "input": COMMAND[0]["content"], "tools": [tool], "tool_choice": "required"}
    (call,) = [item for item in client.responses.create(**asked).output if item.type == "function_call"][:1]
    assert call.name == "set_light" and isinstance(json.loads(call.arguments)["on"], bool)
    kinds = [event.type for event in client.responses.create(**asked, stream=True)]
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert "response.function_call_arguments.done" in kinds


def test_transcripts_in_every_form(client: Any, model: phi4.Phi4, media: Path) -> None:
    recording = media / "speech-transcribe-1.wav"
    expected = model.transcribe(recording).text.strip()

    def heard(**fields: Any) -> Any:
        with recording.open("rb") as file:
            return client.audio.transcriptions.create(model="nano", file=file, **fields)

    assert heard().text == expected
    assert heard(response_format="text").strip() == expected
    assert "-->" in heard(response_format="srt") and heard(response_format="vtt").startswith("WEBVTT")
    verbose = heard(response_format="verbose_json", timestamp_granularities=["segment"])
    assert verbose.duration > 0 and verbose.segments and verbose.model_extra["timing"] == "derived"
    with recording.open("rb") as file:
        events = list(client.audio.transcriptions.create(model="nano", file=file, stream=True))
    assert "".join(event.delta for event in events[:-1]) == events[-1].text == expected
    with recording.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # OpenAI has put it away; the route is still asked for
        assert isinstance(client.audio.translations.create(model="nano", file=file).text, str)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"model": "other"}, "NotFoundError"),
        ({"temperature": 9}, "BadRequestError"),
        ({"max_tokens": 2**23}, "BadRequestError"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "BadRequestError"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"$ref": "#/no"}},
                }
            },
            "BadRequestError",
        ),
    ],
)
def test_errors_are_the_clients_own_classes(client: Any, fields: dict[str, Any], kind: str) -> None:
    with pytest.raises(getattr(openai, kind)) as refused:
        client.chat.completions.create(**{"model": "nano", "messages": HI, **fields})
    assert refused.value.code and refused.value.request_id and refused.value.body["message"]


def test_keys_are_asked_for(another_server: Any) -> None:
    key = "a-key-that-is-long-enough"
    url = another_server("--api-key", key).url
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as right:
        assert right.chat.completions.create(model="nano", messages=HI).choices
    wrong = openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0)
    with wrong, pytest.raises(openai.AuthenticationError):
        wrong.models.list()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_asks_streams_and_uploads(server: Any, model: phi4.Phi4, media: Path) -> None:
    def curl(*words: str) -> str:
        done = subprocess.run(
            ["curl", "-sS", "--fail-with-body", *words], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    json_type = ("-H", "Content-Type: application/json")
    body = {"messages": HI}
    answer = json.loads(curl(f"{server.url}/v1/chat/completions", *json_type, "-d", json.dumps(body)))
    expected = model.chat("Who are you?").text
    assert answer["choices"][0]["message"]["content"] == expected
    streamed = curl(
        "-N", f"{server.url}/v1/chat/completions", *json_type, "-d", json.dumps({**body, "stream": True})
    )
    lines = [line.removeprefix("data: ") for line in streamed.splitlines() if line.startswith("data: ")]
    pieces = [json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines[:-1]]
    assert lines[-1] == "[DONE]" and "".join(pieces) == expected
    recording = media / "speech-transcribe-1.wav"
    text = curl(
        f"{server.url}/v1/audio/transcriptions", "-F", f"file=@{recording}", "-F", "response_format=text"
    )
    assert text.strip() == model.transcribe(recording).text.strip()
    assert json.loads(curl(f"{server.url}/health/ready"))["status"] == "ready"
    assert "vllm:generation_tokens_total" in curl(f"{server.url}/metrics")
