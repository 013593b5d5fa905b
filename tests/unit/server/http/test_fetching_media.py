"""URLs in a conversation: off by default; what they bring counts like a body; places are named in errors."""

from __future__ import annotations

import asyncio
import base64
import itertools
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from phi4.errors import InvalidMedia
from phi4.server.http.fetching import Fetcher
from phi4.server.settings import SERVER_MEDIA_LIMITS, ServerSettings

Serve = Callable[..., Any]
URL = "https://example.org/cat.png"


def content(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [*parts, {"type": "text", "text": "what is it?"}]}]}


def picture(url: str = URL, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


@pytest.fixture
def fetching(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A server whose one fetcher asks this function in place of the network."""

    def build(fetch_one: Callable[[str, int, float], bytes], **settings: Any) -> Any:
        def fetcher(options: ServerSettings) -> Fetcher:
            return Fetcher(options, fetch_one)

        monkeypatch.setattr("phi4.server.http.app.Fetcher", fetcher)
        return serve(allow_remote=True, **settings)

    return build


def test_url_becomes_content_and_keeps_what_is_said_of_it(fetching: Callable[..., Any]) -> None:
    asked: list[tuple[str, int, float]] = []

    def fetch_one(url: str, max_bytes: int, timeout_s: float) -> bytes:
        asked.append((url, max_bytes, timeout_s))
        return b"picture"

    serving = fetching(fetch_one)
    parts = [
        picture(detail="low"),
        {"type": "file", "file": {"file_url": "http://example.org/a.pdf", "filename": "a.pdf"}},
        picture("data:image/png;base64,AAAA"),
    ]
    assert serving.post("/v1/chat/completions", content(*parts)).status == 200
    url = "data:application/octet-stream;base64," + base64.b64encode(b"picture").decode()
    kept = serving.client.requests[0].messages[0]["content"]
    assert kept[0] == {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
    assert kept[1] == {"type": "file", "file": {"file_data": url, "filename": "a.pdf"}}
    assert kept[2] == parts[2]
    limits = serving.client.settings.media_limits
    assert asked[0] == (URL, limits.max_remote_bytes, limits.remote_timeout_s) and len(asked) == 2


def test_failure_names_the_place_and_no_address(fetching: Callable[..., Any]) -> None:
    def fetch_one(url: str, max_bytes: int, timeout_s: float) -> bytes:
        raise InvalidMedia("the URL leads into a private network, which is never fetched from: give the file")

    refused = fetching(fetch_one).post("/v1/chat/completions", content(picture()))
    assert refused.status == 400 and refused.error["code"] == "invalid_media"
    assert refused.error["param"] == "messages[0].content[0].image_url.url"
    assert "private network" in refused.error["message"]


def test_fetched_bytes_count_like_a_body(fetching: Callable[..., Any]) -> None:
    serving = fetching(lambda *_: b"x" * 2**20, max_held_bytes=2**20)
    refused = serving.post("/v1/chat/completions", content(picture()))
    assert refused.status == 503 and refused.error["code"] == "overloaded"
    assert serving.client.requests == []


def test_more_urls_than_media_are_allowed_are_not_fetched(fetching: Callable[..., Any]) -> None:
    def fetch_one(url: str, max_bytes: int, timeout_s: float) -> bytes:
        raise AssertionError("nothing is fetched")

    refused = fetching(fetch_one, max_media=2).post("/v1/chat/completions", content(*[picture()] * 3))
    assert refused.status == 400


def test_text_is_never_searched_for_urls(fetching: Callable[..., Any]) -> None:
    asked: list[str] = []

    def fetch_one(url: str, max_bytes: int, timeout_s: float) -> bytes:
        asked.append(url)
        return b""

    serving = fetching(fetch_one)
    shown = f"![x]({URL}) <img src={URL}> {URL}"
    turns = [
        {"role": "system", "content": URL},
        {"role": "user", "content": [{"type": "text", "text": text} for text in (URL, shown)]},
        {"role": "assistant", "content": shown},
        {"role": "user", "content": URL},
    ]
    statuses = {
        serving.post("/v1/chat/completions", {"messages": turns}).status,
        serving.post("/v1/responses", {"input": turns[1:2], "instructions": URL}).status,
        serving.post("/v1/completions", {"prompt": [URL, shown]}).status,
        serving.post("/tokenize", {"messages": turns}).status,
    }
    assert asked == [] and statuses == {200}


def test_urls_of_a_request_are_fetched_side_by_side(fetching: Callable[..., Any]) -> None:
    together = threading.Barrier(3, timeout=20)

    def fetch_one(url: str, max_bytes: int, timeout_s: float) -> bytes:
        together.wait()  # each waits for two others
        return b"picture"

    parts = [picture(f"https://example.org/{number}.png") for number in range(6)]
    assert fetching(fetch_one).post("/v1/chat/completions", content(*parts)).status == 200


def test_slow_urls_of_one_request_do_not_keep_another_waiting(
    fetching: Callable[..., Any], visiting: Any, wait_until: Any
) -> None:
    visit, _ = visiting
    free, waiting = threading.Event(), []

    def fetch_one(url: str, max_bytes: int, timeout_s: float) -> bytes:
        if "slow" in url:
            waiting.append(url)
            assert free.wait(20)
        return b"picture"

    serving = fetching(fetch_one)

    async def ask(*urls: str) -> Any:
        body = content(*map(picture, urls))
        return await visit(serving.app, "POST", "/v1/chat/completions", json_body=body)

    async def check() -> None:
        slow = asyncio.create_task(ask(*(f"https://slow.example/{number}.png" for number in range(20))))
        await wait_until(lambda: bool(waiting))
        assert (await ask(URL, URL)).status == 200 and not slow.done()
        free.set()
        assert (await slow).status == 200

    asyncio.run(check())


def test_all_urls_of_a_request_have_one_deadline(fetching: Callable[..., Any]) -> None:
    asked: list[float] = []
    never = threading.Event()

    def fetch_one(url: str, max_bytes: int, timeout_s: float) -> bytes:
        asked.append(timeout_s)
        never.wait(20)
        return b"too late"

    serving = fetching(fetch_one, fetch_timeout_s=0.3)
    refused = serving.post("/v1/chat/completions", content(*[picture()] * 9))
    never.set()
    assert refused.status == 400 and refused.error["code"] == "invalid_media"
    assert refused.error["param"] == "messages" and "did not arrive" in refused.error["message"]
    assert asked and max(asked) <= 0.3 and serving.client.requests == []


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/responses", "/tokenize"])
def test_every_route_that_takes_media_refuses_urls_when_fetching_is_off(serve: Serve, route: str) -> None:
    serving = serve()
    part = {"type": "input_image", "image_url": URL} if route == "/v1/responses" else picture()
    turn = {"role": "user", "content": [part]}
    body = {"input": [turn]} if route == "/v1/responses" else {"messages": [turn]}
    refused = serving.post(route, body)
    assert refused.status == 400 and "fetches none" in refused.error["message"]
    assert serving.client.requests == []


LOCAL = (
    "127.0.0.1", "localhost", "LOCALHOST", "localhost.", "127.1", "0", "0.0.0.0", "2130706433", "0x7f000001",
    "0x7f.1", "0177.0.0.1", "127.0.0.1.", "127.255.255.254", "[::1]", "[::]", "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1]", "[ff02::1]",
    "[::1%25lo]", "user@127.0.0.1", "127.0.0.1@127.0.0.1", "127.0.0.1%00.example.org", "１２７.0.0.1",
    "127.0.0.1\\@example.org", "127.0.0.1#@example.org", "127.0.0.1\t", "127.0.0.1\r\nHost: x", "",
)  # fmt: skip


KINDS = {"image_url": "url", "audio_url": "url", "video_url": "url", "file": "file_url"}
ROUTES = 3
"""That read messages: chat completions, responses, tokenize."""


def asking(known: set[str], kind: str, url: str) -> dict[str, Any] | None:
    """A body that names a URL, for a route that knows these fields; None = it takes no media."""
    if "messages" in known:
        return content({"type": kind, kind: {KINDS[kind]: url}})
    if "input" in known:
        part = {"file": {"type": "input_file", "file_url": url}}.get(kind)
        return {"input": [{"role": "user", "content": [part or {"type": "input_image", "image_url": url}]}]}
    return None


def ways(kinds: Iterable[str]) -> list[tuple[str, str]]:
    """Scheme and kind of part: every scheme, and every kind."""
    return [("https", "image_url"), ("HTTP", "image_url"), *(("http", kind) for kind in kinds)]


def readers(serving: Any) -> dict[str, set[str]]:
    """Routes of the running app that read JSON, and the fields they know."""
    document = serving.get("/openapi.json").json()
    found = {}
    for path, operations in document["paths"].items():
        body = operations.get("post", {}).get("requestBody", {}).get("content", {})
        if "application/json" in body:
            name = body["application/json"]["schema"]["$ref"].rpartition("/")[2]
            found[path] = set(document["components"]["schemas"][name]["properties"])
    return found


def test_no_way_to_write_a_local_address_reaches_a_listener_through_any_route(serve: Serve) -> None:
    serving = serve(allow_remote=True, media_limits=replace(SERVER_MEDIA_LIMITS, remote_timeout_s=1.0))
    asked = set()
    with socket.create_server(("127.0.0.1", 0)) as sentinel:
        sentinel.setblocking(False)
        port = sentinel.getsockname()[1]
        for route, known in readers(serving).items():
            kinds = KINDS if route == "/v1/chat/completions" else ("image_url",)
            for form, (scheme, kind) in itertools.product(LOCAL, ways(kinds)):
                body = asking(known, kind, f"{scheme}://{form}:{port}/x.png")
                if body is not None:
                    asked.add(route)
                    refused = serving.post(route, body)
                    assert refused.status == 400, (route, form)
                    assert str(port) not in refused.error["message"]
                    with pytest.raises(BlockingIOError):
                        sentinel.accept()
    assert len(asked) == ROUTES and serving.client.requests == []
