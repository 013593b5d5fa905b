"""Numbers have closed ranges, nothing is turned into another type, and null means left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from phi4.errors import InvalidRequest
from phi4.server.http.app import BODIES
from phi4.server.http.body import checked
from phi4.server.http.complaints import field_error
from phi4.server.http.errors import InvalidField
from phi4.server.http.form import Form
from phi4.server.http.schemas.audio import checked_form
from phi4.server.http.schemas.chat import ChatRequest
from phi4.server.http.schemas.completions import CompletionRequest
from phi4.server.http.schemas.responses import ResponsesRequest
from phi4.server.http.schemas.tokenize import TokenizeRequest
from phi4.types import SamplingParams

HI = [{"role": "user", "content": "hi"}]
BAD: dict[str, list[Any]] = {
    "n": [0, -1, 129, 2**31, 10**18, 1.5, 1.0, True, "1", [], {}, 10**300],
    "temperature": [-0.1, 2.1, "1", True, [], 1e300],
    "top_p": [-0.1, 1.1, "0.5", True],
    "top_k": [-2, 2**31, 1.5, "3"],
    "min_p": [-0.1, 1.1, "x"],
    "presence_penalty": [-2.1, 2.1, "0"],
    "frequency_penalty": [-2.1, 2.1, {}],
    "repetition_penalty": [0, -1, 2.1, "1"],
    "seed": [2**63, -(2**63) - 1, 1.5, "7", True],
    "max_tokens": [0, -1, 2**24 + 1, 1.5, "9"],
    "max_completion_tokens": [0, -5, 10**30],
    "stop": ["", [""], [1], 5, ["x"] * 17, "x" * 1025, {"a": "b"}, [["x"]]],
    "logit_bias": [
        {"-1": 1},
        {"abc": 1},
        {"1.5": 1},
        {"²": 1},
        {str(2**31): 1},
        {"1": 101},
        {"1": -100.5},
        {"1": "x"},
        {str(number): 0 for number in range(1025)},
        [1],
        "x",
    ],
    "logprobs": [1, "true", 0.0],
    "top_logprobs": [-1, 21, 1.5, "3"],
    "stream": [1, "true", "yes"],
    "stream_options": [True, [], {"include_usage": 1}],
    "model": [1, "", "x" * 257, []],
    "tools": [{}, "x", [1], [[]], [{"type": "function"}] * 129],
    "tool_choice": ["some", 1, {}, {"type": "function"}, {"type": "other", "function": {"name": "f"}}],
    "response_format": ["json", {}, {"type": "xml"}, {"type": "json_schema", "json_schema": []}],
    "messages": [None, [], "hi", {}, [1], [[]], HI * 4097],
    "timeout_s": [0, 0.5, -1, 86_401, "5"],
    "truncation": ["yes", True],
}
STRANGE: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    10**30,
    1e300,
    "",
    "x",
    "x" * 2000,
    [],
    ["x"],
    [[]],
    {},
    {"x": 1},
]
STRANGE += [[1] * 5000, {"type": 1}, {"format": 1}, {"include_usage": "x"}]
CASES = [(name, value) for name, values in BAD.items() for value in values]


@pytest.mark.parametrize(("name", "value"), CASES, ids=lambda value: repr(value)[:40])
def test_values_out_of_range_or_of_another_type_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidField) as refused:
        checked(ChatRequest, {"messages": HI, name: value})
    assert refused.value.param.startswith(name), refused.value.param


def numbers(schema: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every number in a schema, and where it stands."""
    if isinstance(schema, dict):
        if schema.get("type") in ("integer", "number"):
            yield where, schema
        for name, inner in schema.items():
            yield from numbers(inner, f"{where}.{name}")
    elif isinstance(schema, list):
        for inner in schema:
            yield from numbers(inner, where)


@pytest.mark.parametrize("model", BODIES, ids=lambda model: model.__name__)
def test_every_number_of_every_body_has_a_closed_range(model: type[BaseModel]) -> None:
    found = list(numbers(model.model_json_schema(), model.__name__))
    low, high = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
    open_ended = [
        where
        for where, schema in found
        if not any(name in schema for name in low) or not any(name in schema for name in high)
    ]
    assert not open_ended
    assert len(found) >= (0 if model.__name__ == "TokenizeRequest" else 2)


FOREIGN = re.compile(
    r"input should|validation|instance|dictionary|string|integer|None|True|False|\bint\b|\bstr\b"
)
"""Words of the library that checks and of Python, which no client has to know."""
FORM = {
    "temperature": ["hot", "nan", "7"],
    "stream": ["maybe"],
    "response_format": ["pdf"],
    "timeout_s": ["0"],
}


@pytest.mark.parametrize(("name", "value"), CASES, ids=lambda value: repr(value)[:40])
def test_complaints_are_in_words_of_our_own(name: str, value: Any) -> None:
    with pytest.raises(InvalidField) as refused:
        checked(ChatRequest, {"messages": HI, name: value})
    message = str(refused.value)
    assert "has to " in message or "has a " in message or "has " in message, message
    assert not FOREIGN.search(message) and len(message) < 300, message


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in FORM for value in FORM[name]])
def test_complaints_about_forms_are_the_same(name: str, value: str) -> None:
    with pytest.raises(InvalidField) as refused:
        checked_form(Form([(name, value)], [("file", b"x")]))
    assert not FOREIGN.search(str(refused.value)) and f'"{value}"' in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"messages": []}, "messages: has to have 1 or more entries, not 0"),
        ({"temperature": 9}, "temperature: has to be at most 2, not 9"),
        ({"seed": 2**63}, "seed: has to be at most 9223372036854775807, not 9223372036854775808"),
        ({"max_tokens": 1.5}, "max_tokens: has to be a whole number, not 1.5"),
        ({"user": True}, "user: has to be text, not true"),
        ({"model": ""}, "model: has to have 1 or more characters, not 0"),
        ({"stop": ["a"] * 17}, "stop: has to have 16 or fewer entries, not 17"),
        ({"truncation": "x" * 99}, f'truncation: has to be one of auto, disabled, not "{"x" * 40}"...'),
        ({"response_format": "json"}, 'response_format: has to be an object, not "json"'),
        ({"response_format": {}}, "response_format.type: has to be given"),
        ({"tools": [[]]}, "tools[0]: has to be an object, not a list"),
        ({"chat_template": "{{ x }}"}, "chat_template: is not supported here; leave it out"),
    ],
)
def test_a_complaint_names_the_field_what_it_may_be_and_what_it_is(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidField) as refused:
        checked(ChatRequest, {"messages": HI, **fields})
    assert str(refused.value) == said


def test_every_kind_of_complaint_the_schemas_can_have_has_its_words() -> None:
    """What the library may say about bodies of every shape is in the table, so nothing is said in general."""
    for body in (ChatRequest, CompletionRequest, ResponsesRequest, TokenizeRequest):
        for name in body.model_fields:
            for value in STRANGE:
                try:
                    body.model_validate({"messages": HI, "prompt": "x", "input": "x", name: value})
                except ValidationError as error:
                    assert "cannot be used" not in str(field_error(error)), (name, value)


def test_null_is_the_same_as_leaving_out() -> None:
    every = dict.fromkeys(set(ChatRequest.model_fields) - {"messages"})
    assert checked(ChatRequest, {"messages": HI, **every}) == checked(ChatRequest, {"messages": HI})


def test_defaults_are_greedy_and_plain() -> None:
    assert checked(ChatRequest, {"messages": HI}).params(None) == SamplingParams(logit_bias={})


def test_everything_that_draws_reaches_the_engine() -> None:
    given_fields = {
        "temperature": 1,
        "top_p": 0.5,
        "top_k": 40,
        "min_p": 0.1,
        "presence_penalty": -1,
        "frequency_penalty": 0.5,
        "repetition_penalty": 1.1,
        "seed": 7,
        "logit_bias": {"5": -100, "17": 2.5},
        "stop": "END",
    }
    asked = checked(CompletionRequest, {"prompt": "x", **given_fields})
    assert asked.params(3) == SamplingParams(
        temperature=1.0,
        top_p=0.5,
        top_k=40,
        min_p=0.1,
        presence_penalty=-1.0,
        frequency_penalty=0.5,
        repetition_penalty=1.1,
        seed=7,
        logit_bias={5: -100.0, 17: 2.5},
        logprobs=3,
        stop=("END",),
    )


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_seed_becomes_one_the_sampler_takes(seed: int) -> None:
    params = checked(ChatRequest, {"messages": HI, "seed": seed}).params(None)
    assert params.seed is not None and 0 <= params.seed < 2**64


def test_other_servers_words_for_everything_are_understood() -> None:
    asked = checked(ChatRequest, {"messages": HI, "top_k": -1, "top_p": 0})
    assert asked.params(None).top_k == 0 and 0 < asked.params(None).top_p < 1e-3


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(ChatRequest.model_fields)), JSON, max_size=6))
def test_any_body_is_taken_or_refused_and_nothing_else(body: dict[str, Any]) -> None:
    try:
        asked = checked(ChatRequest, {"messages": HI, **body})
        asked.prepare("")
        asked.options("")
    except InvalidRequest:
        return
