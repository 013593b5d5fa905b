"""Keys: every route of the running app needs one, but for a literal list, whatever the path looks like."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

import pytest
from starlette.routing import BaseRoute

from phi4.server.http.auth import OPEN_PATHS, Keys, digest_of, name_of

KEY = "correct horse battery staple"
WITH_KEY = [(b"authorization", f"Bearer {KEY}".encode())]
WRONG = {
    "none": [],
    "wrong": [(b"authorization", b"Bearer wrong")],
    "prefix": [(b"authorization", f"Bearer {KEY[:-1]}".encode())],
    "longer": [(b"authorization", f"Bearer {KEY}x".encode())],
    "empty": [(b"authorization", b"Bearer ")],
    "no scheme": [(b"authorization", KEY.encode())],
    "basic": [(b"authorization", f"Basic {KEY}".encode())],
    "two headers": WITH_KEY * 2,
    "right and wrong": [*WITH_KEY, (b"authorization", b"Bearer wrong")],
    "not ASCII": [(b"authorization", "Bearer clé".encode())],
    "digest": [(b"authorization", f"Bearer {digest_of(KEY)}".encode())],
    "huge": [(b"authorization", b"Bearer " + b"x" * 10_000)],
    "other header": [(b"x-api-key", KEY.encode())],
}
QUESTION = {"messages": [{"role": "user", "content": "hi"}]}
DISGUISES = ("//{0}", "/health/live/..{0}", "{0};x", "{0}/", "/{0}", "/%2e{0}", "{0}%00", "{0}?/health/live")


@pytest.fixture
def locked(serve: Callable[..., Any]) -> Any:
    return serve(key_digests=(digest_of(KEY),))


def doors(routes: list[BaseRoute]) -> list[tuple[str, str]]:
    """Method and path of every route of a running app."""
    assert all(route.path and route.methods for route in routes), "every route says how it is reached"
    found = [
        (method, route.path.replace("{name:path}", "nano").replace("{response_id}", "resp_1"))
        for route in routes
        for method in sorted({*route.methods, *({"HEAD"} if "GET" in route.methods else ())})
    ]
    assert len(found) >= 12, "the enumeration must find the routes"
    return found


@pytest.mark.parametrize("credentials", WRONG.values(), ids=WRONG)
def test_no_route_answers_without_a_valid_key(locked: Any, credentials: list[Any]) -> None:
    for method, path in doors(locked.app.routes):
        if path.encode() in OPEN_PATHS:
            continue
        answered = locked.send(method, path, headers=credentials)
        assert answered.status == 401, (method, path)
        assert method == "HEAD" or answered.error["code"] == "invalid_api_key"
        assert answered.header("www-authenticate") == "Bearer"
    assert locked.client.requests == [] and locked.client.admission.accepted_total == 0


def test_open_routes_are_few_and_say_nothing_of_the_model(locked: Any) -> None:
    reachable = {path for _, path in doors(locked.app.routes) if path.encode() in OPEN_PATHS}
    assert reachable == {"/", "/health", "/health/live", "/health/ready"}
    assert locked.get("/health/live").status == locked.get("/health/ready").status == 200
    assert b"nano" not in locked.get("/health/ready").body


@pytest.mark.parametrize("disguise", DISGUISES)
def test_disguised_path_needs_a_key_as_well(locked: Any, disguise: str) -> None:
    for method, path in doors(locked.app.routes):
        given = disguise.format(path).encode()
        if given in OPEN_PATHS or given.partition(b"?")[0] in OPEN_PATHS:
            continue
        assert locked.send(method, path, raw_path=given).status == 401, given


@pytest.mark.parametrize("given", [b"/%68ealth/live", b"/health%2Flive", b"/health/./live", b"/%2F"])
def test_path_that_is_open_only_once_it_is_decoded_needs_a_key(locked: Any, given: bytes) -> None:
    for path in ("/health/live", "/"):
        assert locked.send("GET", path, raw_path=given).status == 401


def test_a_key_of_nothing_lets_nobody_in(serve: Callable[..., Any]) -> None:
    serving = serve(key_digests=(digest_of(""),))
    for credentials in ([], [(b"authorization", b"Bearer ")], [(b"authorization", b"Bearer")]):
        assert serving.get("/v1/models", headers=credentials).status == 401


def test_right_key_opens_every_route(locked: Any) -> None:
    for method, path in doors(locked.app.routes):
        assert locked.send(method, path, headers=WITH_KEY).status != 401, (method, path)


def test_key_is_known_by_its_digest_only(locked: Any) -> None:
    assert locked.post("/v1/chat/completions", QUESTION, headers=WITH_KEY).status == 200
    salt = locked.client.options[0].salt
    assert salt == name_of(digest_of(KEY)) and KEY not in salt


def test_every_route_that_generates_uses_the_caches_of_its_key_alone(locked: Any) -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--b--\r\n'
    turn = QUESTION["messages"]
    form_type = (b"content-type", b"multipart/form-data; boundary=b")
    bodies = {
        "/v1/chat/completions": {"json": QUESTION},
        "/v1/responses": {"json": {"input": turn}},
        "/v1/completions": {"json": {"prompt": "hi"}},
        "/v1/audio/transcriptions": {"chunks": [form], "headers": [*WITH_KEY, form_type]},
        "/v1/audio/translations": {"chunks": [form], "headers": [*WITH_KEY, form_type]},
        "/tokenize": {"json": {"prompt": "hi"}},
    }
    posts = {path for method, path in doors(locked.app.routes) if method == "POST"}
    assert posts - {"/v1/responses/resp_1/cancel"} == set(bodies), "every route that reads a body is tried"
    for path, given in bodies.items():
        assert locked.send("POST", path, **{"headers": WITH_KEY, **given}).status == 200, path
    salts = [options.salt for options in locked.client.options]
    assert salts == [name_of(digest_of(KEY))] * 5, "all but /tokenize, which generates nothing"


def test_without_keys_everybody_is_one_tenant(serve: Callable[..., Any]) -> None:
    serving = serve()
    assert serving.chat().status == 200
    assert serving.client.options[0].salt == ""


def test_every_digest_is_compared_whatever_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    real = hmac.compare_digest

    def counted(first: bytes, second: bytes) -> bool:
        seen.append(second)
        return real(first, second)

    monkeypatch.setattr("phi4.server.http.auth.hmac.compare_digest", counted)
    keys = Keys([digest_of("a"), digest_of("b"), digest_of("c")])
    assert keys.name([(b"authorization", b"Bearer a")]) == name_of(digest_of("a"))
    assert keys.name([(b"authorization", b"Bearer nobody")]) is None
    assert keys.name([]) is None
    assert len(seen) == 9
