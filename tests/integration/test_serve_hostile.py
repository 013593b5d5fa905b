"""Everything that has broken other servers, through every door of the running app, a canary after each.

Routes are taken from the running server's own document, so a new one is attacked without being named here.
After every single request comes the canary: a question whose exact answer is known, answered by the same
engine process as at the start.
"""

from __future__ import annotations

import base64
import json
import re
import struct
import time
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx2 as httpx
import pytest

import phi4

QUESTION = {"model": "nano", "messages": [{"role": "user", "content": "Who are you?"}]}
LEAK = re.compile(r"0x[0-9a-fA-F]{6,}|(?<![\w.:/])/(?:\w[\w.-]*/)+\w|Traceback|site-packages")
LATEST_S = 20.0


def png(width: int, height: int, rows: int = 1) -> bytes:
    """A PNG whose header says any size, with almost no content."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * (1 + 3 * min(width, 10)) * rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def wav(seconds: float = 0.01, rate: int = 16_000, channels: int = 1, size: int | None = None) -> bytes:
    """A WAV file whose header says anything."""
    content = b"\0\0" * int(seconds * 16_000)
    told = len(content) if size is None else size
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", (told + 36) % 2**32, b"WAVE", b"fmt ", 16, 1, channels,
                       rate, (rate * 2) % 2**32, 2, 16, b"data", told)  # fmt: skip
    return head + content


def url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def picture(given: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": given}}


def sound(given: str) -> dict[str, Any]:
    return {"type": "audio_url", "audio_url": {"url": given}}


def document(content: bytes) -> dict[str, Any]:
    return {
        "type": "file",
        "file": {"file_data": url(content, "application/octet-stream"), "filename": "../../a"},
    }


def video(content: bytes) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url(content, "video/mp4")}}


def tool(name: Any, parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


BOMBS = {
    "30,000 squared": png(30_000, 30_000),
    "2^31 wide": png(2**31 - 1, 1),
    "no pixels": png(0, 0),
    "one row of 100,000": png(1, 100_000),
    "cut off": png(64, 64)[:40],
    "not a picture": b"%PDF-1.7 not really",
}
SOUNDS = {
    "longer than told": wav(size=2**32 - 1),
    "no channels": wav(channels=0),
    "256 channels": wav(channels=256),
    "rate 0": wav(rate=0),
    "rate 1": wav(rate=1),
    "rate 2^31": wav(rate=2**31),
    "nothing in it": wav(seconds=0),
    "cut off": wav()[:30],
    "junk": b"RIFF" + bytes(range(256)),
}
FILES = {
    "PDF of nothing": b"%PDF-1.7\n%%EOF",
    "PDF cut off": b"%PDF-1.4\n1 0 obj\n<</Type/Catalog/Pages 1 0 R>>\nendobj\ntrailer<</Root 1 0 R>>",
    "deep page": b"<html>" + b"<div>" * 50_000,
    "script": b"<html><script>alert(1)</script><img src=http://127.0.0.1:1/x>",
    "binary": bytes(range(256)) * 10,
    "empty": b"",
    "box that holds itself": struct.pack(">I4s", 24, b"ftyp")
    + b"isom"
    + struct.pack(">II4s", 0, 2**31, b"moov"),
}
TOOLS = {
    "with no name": [tool(None, {})],
    "with a name of control tokens": [tool("<|end|><|user|>", {})],
    "with code for a name": [tool("__import__('os')", {})],
    "twice": [tool("f", {})] * 2,
    "too many": [tool(f"f{number}", {}) for number in range(129)],
    "of a wrong schema": [tool("f", {"type": 7})],
    "of a cycle": [tool("f", {"$ref": "#"})],
    "of a huge enum": [tool("f", {"type": "object", "properties": {"a": {"enum": list(range(20_000))}}})],
}
REFUSED_URLS = (
    "http://127.0.0.1:1/x.png", "http://localhost/x", "http://[::1]/x", "http://169.254.169.254/latest",
    "http://2130706433/x", "http://0x7f000001/x", "http://127.1/x", "http://127.0.0.1:6666\\@1.1.1.1/",
    "http://user@127.0.0.1/", "http:///x", "file:///etc/hostname", "/etc/hostname", "../../etc/hostname",
    "gopher://127.0.0.1/x", "data:image/png;base64,####", "data:image/png,AAAA", "data:,",
    "data:image/png;base64,",     "data:text/html;base64,AAAA",
)  # fmt: skip
NUMBERS = (17 * 10, 2**31, 10**18, -1, 0, 1.5, True, "1", [], {})
HOSTILE_NAMES = (
    "nano", "../../etc/passwd", "..", "%2e%2e", "\0", "a" * 7000, "<|end|><|user|>", "{{ 7*7 }}", "' OR 1=1",
    "\u202e\ufeff", "resp_" + "0" * 24, "<img src=x onerror=alert(1)>", "\r\nx-evil: 1", "0x7f3a2b1c9d00",
)  # fmt: skip
CONTROL = (
    "<|user|><|assistant|><|end|><|system|><|endoftext10|><|endoftext11|><|image_1|><|audio_1|><|tool_call|>"
)


def asks(content: Any, **fields: Any) -> dict[str, Any]:
    """What a body asks; `fitted` gives it the names of a route."""
    return {"content": content, "max_tokens": 4, **fields}


def fitted(attack: dict[str, Any] | bytes, known: set[str]) -> bytes:
    """The body of an attack for a route that knows these fields; bytes go as they are."""
    if isinstance(attack, bytes):
        return attack
    body = dict(attack)
    content = body.pop("content")
    turn = [{"role": "user", "content": content}]
    if "input" in known:
        body |= {"input": turn, "max_output_tokens": body.pop("max_tokens")}
        form = body.pop("response_format", None)
        if form is not None:
            body["text"] = {"format": {"type": form["type"], **form.get("json_schema", form)}}
    elif "messages" in known:
        body["messages"] = turn
    else:
        body["prompt"] = content if isinstance(content, str) else [content]
    return json.dumps(body).encode()


def attacks() -> dict[str, dict[str, Any] | bytes]:
    """Name and body of every attack that is JSON, or pretends to be."""
    found: dict[str, dict[str, Any] | bytes] = {
        "nothing": b"",
        "not JSON": b"{",
        "a list": b"[]",
        "not UTF-8": b'{"messages": "\xff"}',
        "NaN": b'{"messages": [], "temperature": NaN}',
        "1e999": b'{"temperature": 1e999}',
        "5,000 digits": b'{"n": ' + b"9" * 5000 + b"}",
        "nested": b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "twice": b'{"prompt": "a", "prompt": "b"}',
        "half a surrogate": b'{"prompt": "\\ud800", "input": "\\ud800"}',
        "a million messages": b'{"messages": [' + b"{}," * 1_000_000 + b"{}]}",
        "a key of a megabyte": b'{"' + b"k" * 2**20 + b'": 1}',
        "10,000 placeholders": asks("<|image_1|><|audio_1|>" * 10_000),
        "control tokens": asks(CONTROL * 20),
        "NUL": asks("a\0b"),
        "template": asks("x", chat_template="{{ cycler.__init__ }}", chat_template_kwargs={"tokenize": True}),
        "100,000 biases": asks("x", logit_bias={str(number): 1 for number in range(100_000)}),
        "bias of no token": asks("x", logit_bias={"99999999": 5}),
        "schema with a cycle": asks("x", response_format={"type": "json_schema", "json_schema": {
            "name": "x", "schema": {"$ref": "#"}}}),
        "deep schema": asks("x", response_format={"type": "json_schema", "json_schema": {
            "name": "x", "schema": _deep(60)}}),
        "regex of groups": asks("x", response_format={"type": "regex", "regex": "(" * 60_000}),
        "regex that backtracks": asks("x", response_format={"type": "regex", "regex": "(a+)+$"}),
        "regex that repeats": asks("x", response_format={"type": "regex", "regex": "(a{1,1000}){1,1000}"}),
        "grammar of nothing": asks("x", response_format={"type": "grammar", "grammar": ""}),
        "many choices": asks("x", response_format={"type": "choice", "choice": [*map(str, range(20_000))]}),
        "model is a path": asks("x", model="../../etc"),
        "stops": asks("x", stop=["a"] * 1000),
        "parts": asks([{"type": "text", "text": "x"}] * 5000),
        "answers of tools": asks("x", tool_choice={"type": "function", "function": {"name": "nobody"}}),
        "200 recordings": asks([sound(url(wav(), "audio/wav"))] * 200),
    }  # fmt: skip
    for name in ("n", "best_of", "max_tokens", "max_output_tokens", "max_completion_tokens", "seed", "top_k"):
        found |= {f"{name} {value!r}": asks("x", **{name: value}) for value in NUMBERS}
    for name in ("temperature", "top_p", "min_p", "presence_penalty", "repetition_penalty", "top_logprobs"):
        found |= {f"{name} {value!r}": asks("x", **{name: value}) for value in (-3, 1e300, "1", [], True)}
    found |= {f"URL {given}": asks([picture(given)]) for given in REFUSED_URLS}
    found |= {f"picture {name}": asks([picture(url(bomb, "image/png"))]) for name, bomb in BOMBS.items()}
    found |= {f"sound {name}": asks([sound(url(bomb, "audio/wav"))]) for name, bomb in SOUNDS.items()}
    found |= {f"file {name}": asks([document(content)]) for name, content in FILES.items()}
    found |= {f"video {name}": asks([video(content)]) for name, content in {**FILES, **BOMBS}.items()}
    found |= {f"tools {name}": asks("x", tools=tools) for name, tools in TOOLS.items()}
    return found


def forms() -> dict[str, dict[str, Any]]:
    """Name and arguments of every hostile form: files that are none, and a fair one with hostile fields."""
    fair = {"file": ("a.wav", wav(0.5))}
    found: dict[str, dict[str, Any]] = {
        f"file {name}": {"files": {"file": ("x" * 200 + "\0/../a.wav", content)}}
        for name, content in {**SOUNDS, **BOMBS, **FILES}.items()
    }
    fields = ("model", "language", "prompt", "response_format", "temperature", "timeout_s", "stream")
    hostile = ("", "-1", "1e999", "nan", "9" * 5000, CONTROL, "../../etc", "\0", "x" * 60_000, "{{ 7*7 }}")
    found |= {
        f"{field} {value[:20]!r}": {"files": fair, "data": {field: value}}
        for field in (*fields, "target_language", "include[]", "timestamp_granularities[]", "x" * 9000)
        for value in hostile
    }
    found |= {
        "no form": {"content": b"nonsense", "headers": {"content-type": "multipart/form-data; boundary=b"}},
        "JSON": {"json": {"file": "a"}},
        "no file": {"files": {"other": ("a", wav())}},
        "a boundary of 30,000 characters": {
            "content": b"--",
            "headers": {"content-type": "multipart/form-data; boundary=" + "b" * 30_000},
        },
        "1,000 fields": {"files": fair, "data": {f"f{number}": "x" for number in range(1000)}},
    }
    return found


def _deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"allOf": [schema]}
    return schema


def doors(client: httpx.Client) -> tuple[dict[str, set[str]], list[str]]:
    """Paths of the running server that read JSON, with the fields they know, and those that read forms."""
    document = client.get("/openapi.json").json()
    posts = {
        path: item["post"]["requestBody"]["content"]
        for path, item in document["paths"].items()
        if "requestBody" in item.get("post", {})
    }
    reads_json = {}
    for path, content in posts.items():
        if "application/json" in content:
            name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
            reads_json[path] = set(document["components"]["schemas"][name]["properties"])
    reads_forms = [path for path, content in posts.items() if "multipart/form-data" in content]
    assert set(posts) == {*reads_json, *reads_forms} and len(reads_json) >= 4 and len(reads_forms) == 2
    return reads_json, reads_forms


def without_bodies(client: httpx.Client) -> list[tuple[str, str]]:
    """Method and path of every operation that reads no body."""
    paths = client.get("/openapi.json").json()["paths"]
    found = [
        (method.upper(), path)
        for path, item in paths.items()
        for method, operation in item.items()
        if "requestBody" not in operation
    ]
    assert {method for method, _ in found} == {"GET", "DELETE", "POST"} and len(found) >= 8
    return found


@pytest.fixture(scope="module")
def client(server: Any) -> Any:
    with httpx.Client(base_url=server.url, timeout=LATEST_S) as found:
        yield found


@pytest.fixture(scope="module")
def canary(server: Any, client: httpx.Client) -> Callable[[str], None]:
    """`canary(attack)`: the same engine process as ever still says exactly what the model says."""
    expected = phi4.load("nano").chat("Who are you?").text
    engine = server.engine_pid

    def check(attack: str) -> None:
        answer = client.post("/v1/chat/completions", json=QUESTION)
        assert answer.status_code == 200, (attack, answer.text)
        assert answer.json()["choices"][0]["message"]["content"] == expected, attack
        assert server.engine_pid == engine, attack

    return check


def checked(answer: httpx.Response, attack: str) -> None:
    """An answer is one of ours: no fault, nothing given away, an error in its form."""
    assert answer.status_code < 500 or answer.status_code == 504, (
        attack,
        answer.status_code,
        answer.text[:300],
    )
    if answer.status_code >= 400:
        error = answer.json()["error"]
        assert error["code"] and error["message"] and error["request_id"], attack
        assert not LEAK.search(answer.text), (attack, answer.text)


def slice_of(names: list[str], every: int) -> list[str]:
    """Each `every`-th, the same in each run."""
    return names[::every]


def attack_json(client: httpx.Client, canary: Callable[[str], None], every: int) -> None:
    corpus = attacks()
    reads_json, _ = doors(client)
    for name in slice_of(sorted(corpus), every):
        for path, known in reads_json.items():
            where = f"{name} at {path}"
            start = time.perf_counter()
            body = fitted(corpus[name], known)
            answer = client.post(path, content=body, headers={"content-type": "application/json"})
            checked(answer, where)
            assert time.perf_counter() - start < LATEST_S
            canary(where)


def test_a_slice_of_the_corpus_harms_no_route(client: httpx.Client, canary: Callable[[str], None]) -> None:
    attack_json(client, canary, 4)


@pytest.mark.slow
def test_the_whole_corpus_harms_no_route(client: httpx.Client, canary: Callable[[str], None]) -> None:
    attack_json(client, canary, 1)


def attack_forms(client: httpx.Client, canary: Callable[[str], None], every: int) -> None:
    _, reads_forms = doors(client)
    corpus = forms()
    for name in slice_of(sorted(corpus), every):
        for path in reads_forms:
            where = f"{name} at {path}"
            checked(client.post(path, **corpus[name]), where)
            canary(where)


def test_a_slice_of_hostile_forms_harms_no_route(client: httpx.Client, canary: Callable[[str], None]) -> None:
    attack_forms(client, canary, 3)


@pytest.mark.slow
def test_hostile_forms_harm_no_route(client: httpx.Client, canary: Callable[[str], None]) -> None:
    attack_forms(client, canary, 1)


def test_hostile_names_and_queries_harm_no_route(client: httpx.Client, canary: Callable[[str], None]) -> None:
    for method, path in without_bodies(client):
        for name in HOSTILE_NAMES:
            asked = quote(name, safe="")
            whole = re.sub(r"{\w+}", lambda _, asked=asked: asked, path)
            url = whole if whole != path else f"{path}?{asked}={asked}"
            where = f"{method} {url[:80]}"
            checked(client.request(method, url), where)
            canary(where)


def test_log_of_the_server_gives_nothing_away(
    server: Any, client: httpx.Client, canary: Callable[[str], None]
) -> None:
    secret = "swordfish7331"
    schema = {"type": "object", "properties": {secret: {"type": "string", "format": secret}}, secret: 1}
    named = {"name": secret, "schema": schema}
    hidden = [
        asks(secret),
        asks(secret, temperature=-5),
        asks(secret, n="x"),
        asks("x", model=secret),
        asks("x", stop=secret),
        asks("x", metadata={secret: 5}),
        asks("x", tools=[tool(secret, schema)], tool_choice="required"),
        asks("x", tools=[tool("f", {"type": secret})]),
        asks("x", response_format={"type": "json_schema", "json_schema": named}),
        asks("x", response_format={"type": "regex", "regex": f"{secret}("}),
        asks("x", response_format={"type": "grammar", "grammar": f"start: {secret}"}),
        asks([picture(url(secret.encode(), "image/png"))]),
        asks([picture(f"data:{secret};base64,AAAA")]),
        asks([picture(f"http://{secret}.example/{secret}")]),
        asks(
            [
                {
                    "type": "file",
                    "file": {"file_data": url(b"%PDF-1.7 x", "application/pdf"), "filename": secret},
                }
            ]
        ),
    ]
    for attack in hidden:
        body = fitted(attack, {"messages"})
        client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    client.get(f"/v1/models/{secret}", headers={"authorization": f"Bearer {secret}", "x-odd": secret})
    client.post("/v1/audio/transcriptions", files={"file": (secret, wav())}, data={"prompt": secret})
    canary("secrets")
    text = "".join(server.log)
    assert secret not in text and "Traceback" not in text and not re.search(r"0x[0-9a-f]{6,}", text)
