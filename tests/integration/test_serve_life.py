"""The life of a server over HTTP: its engine is killed, it is told to stop, it is killed itself."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from phi4.checkpoint import resolve_model
from phi4.processing.tokenizer import Phi4Tokenizer

Start = Callable[..., Any]
STOP_IDS = Phi4Tokenizer.load(resolve_model("nano")).tokens.stop_ids
QUESTION = {"messages": [{"role": "user", "content": "Who are you?"}]}
LONG = {"messages": [{"role": "user", "content": "Count to a thousand."}], "max_tokens": 300, "stream": True}
# Whatever ends a turn is made impossible: these answers go on until their limit.
LONG |= {"logit_bias": dict.fromkeys(map(str, STOP_IDS), -100), "temperature": 1.0, "seed": 3}
ENDLESS = LONG | {"max_tokens": 10_000, "stop_repetition": False}
"""None of these is finished while a test lasts."""


@dataclass
class Stream:
    """One streamed answer, read in a thread.

    Attributes:
        url: The server.
        body: What is asked.
        status: HTTP status; 0 = there was no answer.
        lines: Lines of data that came.
        ended_s: When it ended.
    """

    url: str
    body: dict[str, Any]
    status: int = 0
    lines: list[str] = field(default_factory=list)
    began: threading.Event = field(default_factory=threading.Event)
    ended_s: float = 0.0

    def start(self) -> Stream:
        self.thread = threading.Thread(target=self._read)
        self.thread.start()
        return self

    def _read(self) -> None:
        try:
            with httpx.stream(
                "POST", f"{self.url}/v1/chat/completions", json=self.body, timeout=60
            ) as answer:
                self.status = answer.status_code
                for line in answer.iter_lines():
                    if line:
                        self.lines.append(line)
                        self.began.set()
        except httpx.HTTPError:
            self.lines.append("broken off")
        self.ended_s = time.monotonic()
        self.began.set()

    def finished(self) -> bool:
        """Whether the answer came whole."""
        self.thread.join(60)
        if self.status != 200 or self.lines[-1] != "data: [DONE]":
            return False
        reasons = [json.loads(line[6:])["choices"] for line in self.lines[:-1]]
        return any(choice["finish_reason"] for choices in reasons for choice in choices)

    def told(self) -> bool:
        """Whether it ended with one error that has a code."""
        self.thread.join(60)
        error = self.lines[-1].removeprefix("data: ")
        return error.startswith("{") and "code" in json.loads(error).get("error", {})


def ask(url: str) -> str:
    answer = httpx.post(f"{url}/v1/chat/completions", json=QUESTION, timeout=60).raise_for_status().json()
    return str(answer["choices"][0]["message"]["content"])


def until_draining(url: str) -> bool:
    """Wait until a server that was told to stop takes nothing new; False = it has finished and gone."""
    end = time.monotonic() + 20.0
    try:
        while httpx.get(f"{url}/health/ready").status_code == 200:
            assert time.monotonic() < end, "the server goes on taking requests"
            time.sleep(0.01)  # between two looks
    except httpx.TransportError:
        return False
    return True


def until_ready(url: str, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while httpx.get(f"{url}/health/ready").status_code != 200:
        assert time.monotonic() < end, "the server does not become ready again"
        time.sleep(0.05)  # between two looks


def kill_engines(server: Any, count: int) -> None:
    expected, dice = ask(server.url), random.Random(5)
    for _ in range(count):
        streams = [Stream(server.url, ENDLESS).start() for _ in range(4)]
        for stream in streams:
            assert stream.began.wait(60)
        time.sleep(dice.random() * 0.1)  # a random moment of the answers
        killed = time.monotonic()
        os.kill(server.engine_pid, signal.SIGKILL)
        for stream in streams:
            assert stream.told() and 0 < stream.ended_s - killed < 2.0, stream.lines[-1]
        until_ready(server.url)
        assert ask(server.url) == expected
    assert httpx.get(f"{server.url}/health/ready").json()["restarts"] == count


def test_a_killed_engine_is_told_to_every_stream_and_replaced(another_server: Start) -> None:
    kill_engines(another_server(), 2)


@pytest.mark.slow
def test_twenty_killed_engines_are_told_to_every_stream_and_replaced(another_server: Start) -> None:
    kill_engines(another_server(), 20)


def drain(start: Start, seed: int) -> None:
    server, dice = start(), random.Random(seed)
    streams = [Stream(server.url, LONG).start() for _ in range(8)]
    assert all(stream.began.wait(60) for stream in streams)
    time.sleep(dice.random() * 0.2)  # a random moment of the answers
    before = server.children()
    assert any(not stream.ended_s for stream in streams)
    server.process.send_signal(signal.SIGTERM)
    until_draining(server.url)
    try:
        refused = httpx.post(f"{server.url}/v1/chat/completions", json=QUESTION)
        assert refused.status_code == 503 and refused.headers["retry-after"]
        assert refused.json()["error"]["code"] == "shutting_down"
    except httpx.TransportError:
        assert server.process.wait(10) == 0  # everything was finished by then
    assert all(stream.finished() for stream in streams)
    assert server.process.wait(60) == 0
    server.close()
    assert before and not any(Path(f"/proc/{pid}").exists() for pid in before)


def test_a_drained_server_loses_no_answer(another_server: Start) -> None:
    drain(another_server, 1)


@pytest.mark.slow
def test_twenty_drained_servers_lose_no_answer(another_server: Start) -> None:
    for seed in range(20):
        drain(another_server, seed)


def test_a_second_signal_ends_the_server_at_once(another_server: Start) -> None:
    server = another_server()
    streams = [Stream(server.url, ENDLESS).start() for _ in range(8)]
    assert all(stream.began.wait(60) for stream in streams)
    server.process.send_signal(signal.SIGTERM)
    assert until_draining(server.url)
    assert not any(stream.ended_s for stream in streams)
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    code = server.process.wait(30)
    assert time.monotonic() - began < 10
    assert all(stream.told() for stream in streams) and code == 1


def test_a_server_that_is_killed_leaves_no_process_behind(another_server: Start) -> None:
    server = another_server()
    left = server.children()
    assert len(left) >= 2
    server.process.kill()
    server.process.wait()
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in left):
        assert time.monotonic() < end, "a child outlives its server"
        time.sleep(0.05)  # between two looks


def serve(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "phi4", "serve", *options], capture_output=True, text=True, timeout=60
    )


def test_a_port_in_use_is_refused_before_the_model_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = serve("--port", str(taken.getsockname()[1]), "--model", "no-such-model")
    assert done.returncode == 2 and "choose another --port" in done.stderr


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--model", "no-such-model"), 6),
        (("--host", "0.0.0.0"), 2),
        (("--max-running", "0"), 2),
        (("--adapter", "a=no-such-folder"), 5),
        (("--voice-activity", "no-such-file"), 5),
    ],
)
def test_what_cannot_be_served_is_one_line_and_an_exit_code(options: tuple[str, ...], code: int) -> None:
    done = serve("--port", "0", *options)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and "phi4: error:" in done.stderr
