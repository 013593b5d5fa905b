"""The load's client reads what servers send, however it is cut, and takes no half answer for a whole."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from load.client.asking import GIVEN_UP, Listener, ask, chat, completion, get, post
from load.client.echo import chunk, event
from load.client.mix import all_kinds
from load.client.users import ask_at_rate, keep_asking
from load.client.wire import Wire
from load.servers import Server, cpu_s, family, free_port

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
USAGE = b'data: {"choices":[],"usage":{"completion_tokens":3,"prompt_tokens":5}}\n\n'
DONE = b"data: [DONE]\n\n"
END = b"0\r\n\r\n"
ANSWER = STREAM + chunk(event("a")) + chunk(event("b")) + chunk(USAGE) + chunk(DONE) + END
BUSY = b'{"error":{"code":"overloaded","message":"no"}}'
REFUSAL = b"HTTP/1.1 503 Busy\r\nContent-Length: %d\r\n\r\n%s" % (len(BUSY), BUSY)


async def talking_to(
    answers: Sequence[bytes | None], use: Callable[[tuple[str, int]], Any]
) -> tuple[Any, list[bytes]]:
    """A server that gives one answer after the other, then closes; None = it closes in place of one."""
    left, heard = list(answers), list[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while left:
                head = await reader.readuntil(b"\r\n\r\n")
                size = next((x for x in head.split(b"\r\n") if x.startswith(b"Content-Length")), b":0")
                heard.append(head + await reader.readexactly(int(size.partition(b":")[2])))
                answer = left.pop(0)
                if answer is None:
                    break
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        return await use(server.sockets[0].getsockname()[:2]), heard


def test_streamed_answer_is_read_with_its_usage_and_the_connection_is_kept() -> None:
    async def use(address: tuple[str, int]) -> list[Any]:
        wire = Wire(*address)
        found = [await ask(wire, chat("hi", {})) for _ in range(2)]
        wire.abort()
        return found

    traces, heard = asyncio.run(talking_to([ANSWER, ANSWER], use))
    for trace in traces:
        assert trace.whole and len(trace.pieces_s) == 2
        assert (trace.tokens, trace.prompt_tokens) == (3, 5)
        assert trace.sent_s <= trace.pieces_s[0] <= trace.pieces_s[1] <= trace.ended_s
    assert len(heard) == 2 and heard[0].endswith(b'[{"role": "user", "content": "hi"}]}')


def test_connection_the_server_did_not_keep_is_opened_again() -> None:
    async def use(address: tuple[str, int]) -> list[Any]:
        wire = Wire(*address)
        found = [await ask(wire, chat("hi", {})) for _ in range(2)]
        wire.abort()
        return found

    traces, heard = asyncio.run(talking_to([ANSWER, None, ANSWER], use))
    assert all(trace.whole for trace in traces) and len(heard) == 3


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (STREAM + chunk(event("a")), "IncompleteReadError"),
        (STREAM + chunk(event("a")) + END, "broke off"),
        (STREAM + chunk(b'data: {"error":{"code":"engine_restarted"}}\n\n') + END, "engine_restarted"),
        (b"hello\r\n\r\n", "ValueError"),
        (REFUSAL, "overloaded"),
    ],
)
def test_answer_that_is_not_whole_is_never_counted_as_one(answer: bytes, error: str) -> None:
    async def use(address: tuple[str, int]) -> Any:
        wire = Wire(*address)
        trace = await ask(wire, chat("hi", {}))
        wire.abort()
        return trace

    trace, _ = asyncio.run(talking_to([answer], use))
    assert not trace.whole and trace.error == error


def test_user_who_waits_no_longer_has_given_up() -> None:
    async def use(address: tuple[str, int]) -> Any:
        return await ask(Wire(*address), chat("hi", {}), patience_s=0.1)

    trace, _ = asyncio.run(talking_to([b"", ANSWER], use))
    assert not trace.whole and trace.error == GIVEN_UP


def test_nobody_listening_is_an_error_of_the_request() -> None:
    trace = asyncio.run(ask(Wire("127.0.0.1", free_port()), get("/")))
    assert trace.status == 0 and trace.error == "ConnectionRefusedError"


def test_events_may_be_cut_anywhere() -> None:
    body = event("one") + event("two") + USAGE + DONE
    for size in (1, 7, 64, len(body)):
        listener = Listener(iter(range(1000)).__next__)
        for first in range(0, len(body), size):
            listener.hear(200, body[first : first + size])
        listener.end(200)
        assert listener.text == "onetwo" and len(listener.pieces_s) == 2 and not listener.error
        assert (listener.tokens, listener.prompt_tokens) == (3, 5)


def test_role_comments_and_ends_are_no_pieces_but_calls_are() -> None:
    listener = Listener()
    listener.hear(200, b': keep-alive\n\ndata: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n')
    listener.hear(200, b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n')
    assert not listener.pieces_s
    listener.hear(200, b'data: {"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}\n\n')
    listener.hear(200, b'data: {"choices":[{"text":"said"}]}\n\n')
    assert len(listener.pieces_s) == 2 and listener.text == "said"


def test_users_ask_one_question_after_the_other() -> None:
    async def use(address: tuple[str, int]) -> list[Any]:
        return await keep_asking(address, [[post("/first", {}), post("/second", {}), post("/third", {})]])

    traces, heard = asyncio.run(talking_to([ANSWER] * 3, use))
    assert all(trace.whole for trace in traces)
    assert [head.split()[1] for head in heard] == [b"/first", b"/second", b"/third"]
    assert all(before.ended_s <= after.sent_s for before, after in pairwise(traces))


def test_requests_at_a_rate_are_due_evenly_spaced_whatever_becomes_of_them() -> None:
    async def use(address: tuple[str, int]) -> Any:
        return await ask_at_rate(address, lambda number: post(f"/{number}", {}), 200.0, 0.02, 60.0)

    (began, traces), heard = asyncio.run(talking_to([REFUSAL] * 4, use))
    due = sorted(trace.due_s - began for trace in traces)
    assert due == pytest.approx([0.0, 0.005, 0.010, 0.015]) and len(heard) == 4
    assert {trace.error for trace in traces} == {"overloaded"}
    assert all(trace.sent_s >= trace.due_s for trace in traces)


def test_answers_of_a_fixed_length_can_end_no_sooner() -> None:
    body = json.loads(completion([1, 2], 9, ends=[3, 4]).partition(b"\r\n\r\n")[2])
    assert body["prompt"] == [1, 2] and body["max_tokens"] == 9 and body["stream_options"]["include_usage"]
    assert body["logit_bias"] == {"3": -100.0, "4": -100.0} and body["stop_repetition"] is False


def test_every_kind_of_request_says_how_long_its_body_is() -> None:
    for kind in all_kinds():
        head, _, content = kind.make(random.Random(1)).partition(b"\r\n\r\n")
        assert f"Content-Length: {len(content)}".encode() in head, kind.name
        assert kind.make(random.Random(1)) == kind.make(random.Random(1)), kind.name


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are found in /proc")
def test_server_is_started_watched_and_ended_with_all_its_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "load.client.echo", "{port}", "3"]
    variables = {**os.environ, "PYTHONPATH": str(BENCHMARKS)}
    with Server("echo", command, variables, tmp_path / "log", "/") as server:
        assert server.processes() == {"server": server.pid} and list(family(server.pid)) == [server.pid]
        assert server.resident_bytes()["server"] > 1_000_000 and server.cpu_s()["server"] > 0
        traces = asyncio.run(keep_asking(server.address, [[chat("hi", {})] * 2] * 3))
        assert all(trace.whole and len(trace.pieces_s) == 3 == trace.tokens for trace in traces)
        pid = server.pid
    assert not Path(f"/proc/{pid}").exists() and cpu_s(pid) == 0.0


def test_children_of_a_process_are_found() -> None:
    found = list(family(os.getppid()))
    assert found[0] == os.getppid() and os.getpid() in found
