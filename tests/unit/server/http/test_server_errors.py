"""The one mapper: every class of error has a status and a stable code, and no message gives anything away."""

from __future__ import annotations

import json
import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from phi4 import errors
from phi4.server import failures
from phi4.server.http.errors import (
    INTERNAL,
    MAX_MESSAGE,
    InvalidField,
    UnknownModel,
    describe,
    error_response,
    shown,
)

EXPECTED = [
    (errors.InvalidRequest("temperature is 3; give 0 to 2"), 400, "invalid_request"),
    (errors.InvalidMedia("picture (12 bytes) is empty"), 400, "invalid_media"),
    (errors.ContextOverflow("the prompt has 9 tokens"), 400, "context_length_exceeded"),
    (errors.MissingExtra("needs PyAV"), 400, "not_available_here"),
    (errors.ModelNotFound("no such model"), 404, "model_not_found"),
    (errors.OutOfMemory("no room"), 503, "out_of_memory"),
    (errors.InvalidArtifact("/srv/models/x/config.json is broken"), 500, "internal_error"),
    (errors.TrainingError("what"), 500, "internal_error"),
    (failures.TooManyRequests("later", 3), 429, "rate_limit_exceeded"),
    (failures.Overloaded("later", 3), 503, "overloaded"),
    (failures.Draining("closing", 5), 503, "shutting_down"),
    (failures.NotReady("starting", 1), 503, "not_ready"),
    (failures.EngineRestarted("again", 1), 503, "engine_restarted"),
    (failures.PreparationFailed("died of it"), 400, "cannot_be_prepared"),
    (failures.DeadlineExceeded("late"), 504, "deadline_exceeded"),
    (failures.InternalFailure("at /srv/x"), 500, "internal_error"),
    (UnknownModel("no"), 404, "model_not_found"),
    (HTTPException(404), 404, "not_found"),
    (HTTPException(405), 405, "method_not_allowed"),
    (RuntimeError("boom"), 500, "internal_error"),
    (AssertionError(), 500, "internal_error"),
]


@pytest.mark.parametrize(("error", "status", "code"), EXPECTED, ids=lambda value: type(value).__name__)
def test_each_error_has_its_status_and_code(error: Exception, status: int, code: str) -> None:
    problem = describe(error)
    assert (problem.status, problem.code) == (status, code)
    body = problem.body("req_1")["error"]
    assert body["request_id"] == "req_1" and body["message"]
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    default = "server_error" if status >= 500 else "invalid_request_error"
    assert body["type"] == kinds.get(status, default)


def test_faults_of_ours_are_told_in_one_sentence() -> None:
    for error in (RuntimeError("secret"), errors.InvalidArtifact("/srv/x"), failures.InternalFailure("why")):
        assert describe(error).message == INTERNAL


def test_client_learns_when_to_come_back_and_when_not_to_repeat() -> None:
    assert describe(failures.Overloaded("later", 7)).headers() == {"retry-after": "7"}
    assert describe(failures.DeadlineExceeded("late")).headers() == {"x-should-retry": "false"}
    assert describe(RuntimeError()).headers() == {"x-should-retry": "false"}


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("messages[0].role is 'x'; valid are user", "messages[0].role"),
        ("messages[3].content[1].image_url.detail is 'x'", "messages[3].content[1].image_url.detail"),
        ("temperature is 3; give 0 to 2", "temperature"),
        ("tools[0] is nested deeper", "tools[0]"),
        ("tool_choice names 'nope'; tools on offer are: f", "tool_choice"),
        ("the prompt has 3 tokens", None),
        ("an object in the body has the same key twice", None),
    ],
)
def test_field_is_read_off_the_message(message: str, param: str | None) -> None:
    assert describe(errors.InvalidRequest(message)).param == param


def test_field_of_a_schema_is_known() -> None:
    problem = describe(InvalidField("stop[2]", "has to be text"))
    assert (problem.param, problem.message) == ("stop[2]", "stop[2]: has to be text")


@pytest.mark.parametrize(
    "secret",
    [
        "/srv/models/nano/config.json",
        "/var/lib/x/",
        "'/opt/a/b'",
        "(/opt/a/b.py)",
        "0x7f3a2b1c9d00",
        "<_io.BytesIO object at 0x7f3a2b1c9d00>",
        "<object object>",
    ],
)
def test_paths_and_addresses_never_show(secret: str) -> None:
    plain = shown(f"cannot open {secret}: broken")
    assert not re.search(r"/(srv|var|opt)/|0x[0-9a-fA-F]{4,}|<.*object", plain)
    assert plain.startswith("cannot open") and plain.endswith("broken")


@pytest.mark.parametrize("text", ["image/png or audio/wav", "and/or", "3/4", "<|/tool|>", "https://host/a/b"])
def test_what_is_no_path_stays(text: str) -> None:
    assert shown(text) == text


@given(st.text(max_size=2000))
def test_any_message_can_be_sent_on_one_line(text: str) -> None:
    plain = shown(text)
    assert len(plain) <= MAX_MESSAGE and "\n" not in plain
    assert json.loads(error_response(errors.InvalidRequest(text), "req_1").body)["error"]["message"] == plain


def test_log_of_a_fault_has_places_but_no_words(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    try:
        raise KeyError("what the client wrote")
    except KeyError as error:
        error_response(error, "req_77")
    line = caplog.records[-1].getMessage()
    assert "req_77" in line and "KeyError" in line and "test_server_errors.py:" in line
    assert "client wrote" not in line and "/" not in line.replace(" < ", "")
