"""What is turned away before keys and routes, and what every answer carries."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

from phi4.server.http.gate import MAX_HEADER_BYTES, MAX_HEADERS, MAX_PATH_BYTES

Serve = Callable[..., Any]
QUESTION = {"messages": [{"role": "user", "content": "hi"}]}


def host(*values: bytes) -> dict[str, Any]:
    return {"host": [(b"host", value) for value in values]}


@pytest.mark.parametrize("value", [b"127.0.0.1:8000", b"localhost", b"LocalHost:1", b"[::1]:8000"])
def test_own_hosts_are_answered(serve: Serve, value: bytes) -> None:
    assert serve().get("/v1/models", **host(value)).status == 200


@pytest.mark.parametrize(
    "values",
    [
        (),
        (b"",),
        (b"evil.example",),
        (b"evil.example:8000",),
        (b"localhost.evil.example",),
        (b"127.0.0.1:8000", b"127.0.0.1:8000"),
        (b"127.0.0.1/?",),
        (b"127.0.0.1/#",),
        (b"127.0.0.1@evil.example",),
        (b"evil.example@127.0.0.1",),
        (b"127.0.0.1:8000 ",),
        (b"127.0.0.1:port",),
        (b"8.8.8.8",),
    ],
    ids=repr,
)
def test_other_hosts_are_not(serve: Serve, values: tuple[bytes, ...]) -> None:
    for path in ("/v1/models", "/health/live", "/"):
        refused = serve().get(path, **host(*values))
        assert refused.status == 421 and refused.error["code"] == "host_refused"


def test_operator_names_more_hosts(serve: Serve) -> None:
    serving = serve(allowed_hosts=("phi.example",))
    assert serving.get("/v1/models", **host(b"phi.example:80")).status == 200
    assert serving.get("/v1/models", **host(b"127.0.0.1:8000")).status == 200
    assert serving.get("/v1/models", **host(b"other.example")).status == 421
    assert serve(allowed_hosts=("*",)).get("/v1/models", **host(b"any.example")).status == 200


def test_server_at_all_addresses_answers_to_addresses_but_not_to_strange_names(serve: Serve) -> None:
    serving = serve(host="0.0.0.0", open_to_all=True)
    assert serving.get("/v1/models", **host(b"192.168.7.7:8000")).status == 200
    assert serving.get("/v1/models", **host(b"[2001:db8::7]:8000")).status == 200
    assert serving.get("/v1/models", **host(b"rebound.example:8000")).status == 421


@pytest.mark.parametrize("origin", [b"http://evil.example", b"null", b"http://127.0.0.1:9", b"file://"])
def test_other_sites_get_nothing_through_a_browser(serve: Serve, origin: bytes) -> None:
    serving = serve()
    refused = serving.post("/v1/chat/completions", QUESTION, headers=[(b"origin", origin)])
    assert refused.status == 403 and refused.error["code"] == "origin_refused"
    assert serving.client.requests == []


def cors(answered: Any) -> dict[str, str]:
    """Headers of an answer that are for browsers."""
    return {
        name.decode(): value.decode()
        for name, value in answered.headers
        if name.startswith(b"access-control") or name == b"vary"
    }


def test_own_page_is_no_other_site_and_gets_no_cors_header(serve: Serve) -> None:
    own = [(b"origin", b"http://127.0.0.1:8000")]
    for serving in (serve(), serve(allowed_origins=(SITE,))):
        answered = serving.post("/v1/chat/completions", QUESTION, headers=own)
        assert answered.status == 200 and not cors(answered)
        assert not cors(serving.get("/v1/models"))


def test_preflight_of_a_browser_is_not_answered(serve: Serve) -> None:
    asked = [(b"origin", b"http://evil.example"), (b"access-control-request-method", b"POST")]
    refused = serve().send("OPTIONS", "/v1/chat/completions", headers=asked)
    assert refused.status == 403 and not cors(refused)
    for own in ([], [(b"origin", b"http://127.0.0.1:8000")]):  # nobody has to ask for those
        refused = serve(allowed_origins=(SITE,)).send(
            "OPTIONS", "/v1/chat/completions", headers=[*own, asked[1]]
        )
        assert refused.status == 405 and not cors(refused)


SITE = "https://chat.example"
LISTED = [(b"origin", SITE.encode())]


def test_a_listed_origin_reads_answers_and_errors(serve: Serve) -> None:
    serving = serve(allowed_origins=("app://obsidian.md", SITE), max_body_bytes=2048)
    for answered, status in (
        (serving.post("/v1/chat/completions", QUESTION, headers=LISTED), 200),
        (serving.post("/v1/chat/completions", QUESTION | {"stream": True}, headers=LISTED), 200),
        (serving.get("/nowhere", headers=LISTED), 404),
        (serving.post("/v1/chat/completions", {"messages": ["x" * 4000]}, headers=LISTED), 413),
    ):
        assert answered.status == status
        assert cors(answered)["access-control-allow-origin"] == SITE
        assert cors(answered)["vary"] == "origin" and "access-control-allow-credentials" not in cors(answered)
        assert "x-request-id" in cors(answered)["access-control-expose-headers"]


@pytest.mark.parametrize(
    "origin",
    [
        b"https://chat.example.evil",
        b"http://chat.example",
        b"https://chat.example:444",
        b"null",
        b"https://a",
    ],
)
def test_an_origin_like_a_listed_one_is_another_site(serve: Serve, origin: bytes) -> None:
    serving = serve(allowed_origins=(SITE,))
    for headers in ([(b"origin", origin)], [(b"origin", origin), *LISTED], [*LISTED, *LISTED]):
        refused = serving.post("/v1/chat/completions", QUESTION, headers=headers)
        assert refused.status == 403 and not cors(refused)
    assert serving.client.requests == []


def test_preflight_of_a_listed_origin_needs_no_key_and_opens_nothing(serve: Serve) -> None:
    serving = serve(allowed_origins=(SITE,), key_digests=("ab" * 32,))
    names = b"authorization, content-type,x-stainless-os"
    asked = [*LISTED, (b"access-control-request-method", b"POST")]
    told = serving.send(
        "OPTIONS", "/v1/chat/completions", headers=[*asked, (b"access-control-request-headers", names)]
    )
    assert (told.status, told.body) == (204, b"")
    assert cors(told)["access-control-allow-origin"] == SITE
    assert cors(told)["access-control-allow-headers"] == names.decode()
    assert set(cors(told)["access-control-allow-methods"].split(", ")) == {"GET", "HEAD", "POST", "DELETE"}
    strange = serving.send(
        "OPTIONS", "/v1/models", headers=[*asked, (b"access-control-request-headers", b"a: b;c")]
    )
    assert strange.status == 204 and "access-control-allow-headers" not in cors(strange)
    assert serving.send("OPTIONS", "/v1/models", headers=LISTED).status == 401
    assert serving.get("/v1/models", headers=LISTED).status == 401
    assert serving.client.admission.accepted_total == 0


def test_too_much_header_or_path_is_refused(serve: Serve) -> None:
    serving = serve()
    many = [(b"x-%d" % number, b"y") for number in range(MAX_HEADERS)]
    assert serving.get("/v1/models", headers=many).status == 431
    assert serving.get("/v1/models", headers=[(b"x", b"y" * MAX_HEADER_BYTES)]).status == 431
    assert serving.get("/" + "a" * MAX_PATH_BYTES).status == 431


def test_announced_or_compressed_bodies_are_refused_before_they_are_read(serve: Serve) -> None:
    serving = serve(max_body_bytes=2048)
    for length in (b"2049", b"9" * 30, b"-1", b"many"):
        refused = serving.post("/v1/chat/completions", QUESTION, headers=[(b"content-length", length)])
        assert refused.status == 413
    packed = serving.post("/v1/chat/completions", QUESTION, headers=[(b"content-encoding", b"gzip")])
    assert packed.status == 415
    assert serving.client.admission.accepted_total == 0


def test_every_answer_has_an_id_of_its_own_and_is_not_cached(serve: Serve) -> None:
    serving = serve()
    answers = [serving.get("/v1/models"), serving.get("/nowhere"), serving.chat(), serving.chat(stream=True)]
    ids = [answer.header("x-request-id") for answer in answers]
    assert len(set(ids)) == 4 and all(re.fullmatch(r"req_[0-9a-f]{24}", found) for found in ids)
    assert all(answer.header("cache-control") == "no-store" for answer in answers)
    assert all(answer.header("x-content-type-options") == "nosniff" for answer in answers)
    assert answers[1].error["request_id"] == ids[1]


def test_unknown_routes_and_methods_are_errors_in_the_same_form(serve: Serve) -> None:
    serving = serve()
    for method, path, status in (
        ("GET", "/nowhere", 404),
        ("DELETE", "/v1/models", 405),
        ("GET", "/docs", 404),
    ):
        answered = serving.send(method, path)
        assert answered.status == status
        assert set(answered.error) == {"message", "type", "param", "code", "request_id"}
    assert serving.send("GET", "/v1/chat/completions").header("allow") == "POST"
    assert serving.send("PUT", "/v1/responses/resp_1").header("allow") == "DELETE, GET, HEAD"


@pytest.mark.parametrize(
    "path", ["/v1/models/", "/v1/models/nano/", "/health/ready/", "/v1/chat/completions/"]
)
def test_a_slash_at_the_end_makes_another_path_which_is_none(serve: Serve, path: str) -> None:
    refused = serve().send("POST" if "chat" in path else "GET", path)
    assert refused.status == 404 and "the model '' is" not in refused.error["message"]
    assert refused.error["code"] == ("model_not_found" if "nano" in path else "not_found")


GETS = ("/", "/health", "/health/live", "/health/ready", "/v1/models", "/v1/models/nano", "/version")


@pytest.mark.parametrize("path", [*GETS, "/metrics", "/openapi.json", "/nowhere", "/v1/chat/completions"])
def test_head_is_get_without_its_body(serve: Serve, path: str) -> None:
    serving = serve()
    whole, head = serving.get(path), serving.send("HEAD", path)
    assert (head.status, head.body) == (whole.status, b"") and whole.body and head.whole
    if path != "/metrics":  # which change from one look to the next
        assert head.header("content-length") == whole.header("content-length") == str(len(whole.body))
    assert head.header("content-type") == whole.header("content-type")


def test_fault_of_ours_says_nothing_but_its_id(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    serving = serve()
    serving.client.refusal = ValueError("secret at /srv/models/nano and 0x7f3a2b1c9d00")
    answered = serving.chat("my prompt")
    assert answered.status == 500 and answered.error["code"] == "internal_error"
    for text in (answered.body.decode(), caplog.text):
        assert not re.search(r"secret|/srv|0x[0-9a-f]{6}|my prompt|Traceback", text)
    assert answered.error["request_id"] in caplog.text and "ValueError" in caplog.text


def test_websockets_are_closed_at_once(serve: Serve) -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/v1/models", "raw_path": b"/v1/models", "headers": []}
    asyncio.run(serve().app(scope, receive, send))
    assert [message["type"] for message in sent] == ["websocket.close"]
