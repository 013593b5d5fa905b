"""What crosses the border of a process."""

from __future__ import annotations

import socket
import threading
from typing import Any

import msgspec
import pytest

from phi4 import errors
from phi4.errors import ContextOverflow, InvalidRequest, Phi4Error
from phi4.server import failures
from phi4.server.failures import InternalFailure
from phi4.server.settings import ServerSettings
from phi4.server.worker.frames import (
    AnyFrame,
    BrokenStream,
    Cancel,
    Channel,
    Done,
    EngineReady,
    Events,
    Failed,
    Failure,
    Frame,
    Job,
    Look,
    Looked,
    NotStarted,
    Ping,
    Pong,
    PreparerReady,
    StartEngine,
    StartPreparer,
    Stop,
    Submit,
    body_length,
    decode,
    encode,
    error_of,
    failure_of,
)
from phi4.server.worker.values import (
    Candidate,
    GenerateOptions,
    ModelCard,
    Prepared,
    PreparedRow,
    PrepareRequest,
    ScoredToken,
    ServerEvent,
    ToolCallDelta,
)
from phi4.types import SamplingParams, Timing, Usage

CARD = ModelCard("nano", "onnx", "cpu", "int8", 4096, 320, ("text", "vision"), ("mine",))
SETTINGS = ServerSettings(adapters=(("mine", "somewhere"),), max_crops=3)
SAMPLING = SamplingParams(temperature=0.5, seed=2**64 - 1, stop=("END",), logit_bias={7: -1.5}, logprobs=2)
TOKEN = Candidate(5, "ä", b"\xc3\xa4", -0.5)
EVENT = ServerEvent(
    3,
    "text",
    (ToolCallDelta(0, "call_1", "add", "{"),),
    (ScoredToken(TOKEN, (TOKEN,)),),
    "stop",
    Usage(3, 4),
    Timing(0.1),
    2,
    ("vision", "mine"),
)
REQUEST = PrepareRequest(
    "chat",
    ({"role": "user", "content": [{"type": "image", "image": b"\x89PNG\x00\xff"}, None, True, 1.5, 2**63]},),
    prompts=("text", (1, 2)),
    tools=({"name": "add"},),
    tool_choice={"type": "function", "function": {"name": "add"}},
    response_format={"type": "json_object"},
)
FRAMES: list[Frame] = [
    Failure("InvalidRequest", "no"),
    StartEngine(SETTINGS),
    StartPreparer(SETTINGS, CARD, "folder"),
    EngineReady(CARD, "folder", 100.0),
    PreparerReady(),
    NotStarted(Failure("ModelNotFound", "none")),
    Ping(1),
    Pong(1, 0.5, 5.0),
    Look(2),
    Looked(2, {"running": 1.0}),
    Submit(7, 3, 2, b"\x00blob", GenerateOptions(SAMPLING, 20, 2, "salt", False, 1.5), 20),
    Cancel((7, 8)),
    Events(((7, EVENT), (8, ServerEvent()))),
    Failed(7, Failure("OutOfMemory", "full")),
    Job(REQUEST),
    Done(Prepared((PreparedRow(b"\x01", 4, 1, 2, 5, 6, 0.5, 1.5),), (1, 2), 2.5, 1)),
    Done(failure=Failure("InvalidMedia", "broken")),
    Stop(),
]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_every_frame_arrives_as_it_was_sent(frame: Frame) -> None:
    data = encode(frame)
    assert body_length(data[:4]) == len(data) - 4
    assert decode(data[4:]) == frame


def test_every_kind_of_frame_is_tried_here() -> None:
    assert {type(frame) for frame in FRAMES} == set(AnyFrame.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x80",
        msgspec.msgpack.encode({"type": "Reboot"}),
        msgspec.msgpack.encode({"type": "Ping"}),
        msgspec.msgpack.encode({"type": "Ping", "number": "one"}),
        msgspec.msgpack.encode(["Ping", 1]),
        b"\x91" * 100_000,
    ],
)
def test_bodies_that_are_no_frame_break_the_stream(body: bytes) -> None:
    with pytest.raises(BrokenStream):
        decode(body)


@pytest.mark.parametrize("head", [b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x80\x00\x00\x00"])
def test_lengths_no_frame_has_break_the_stream(head: bytes) -> None:
    with pytest.raises(BrokenStream):
        body_length(head)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, "\ud800", nested(100_000), object()])
def test_what_has_no_form_is_the_requests_fault(value: Any) -> None:
    with pytest.raises(InvalidRequest):
        encode(Job(PrepareRequest("chat", ({"role": "user", "content": value},))))


def kinds() -> list[type[Phi4Error]]:
    found = [*vars(errors).values(), *vars(failures).values()]
    return [kind for kind in found if isinstance(kind, type) and issubclass(kind, Phi4Error)]


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_errors_of_ours_keep_class_and_message(kind: type[Phi4Error]) -> None:
    found = error_of(failure_of(kind("what happened")))
    assert type(found) is kind and str(found) == "what happened"


def test_errors_that_are_not_ours_lose_their_message() -> None:
    found = failure_of(ValueError("the client's secret"))
    assert "secret" not in found.message
    assert isinstance(error_of(found), InternalFailure)


@pytest.mark.parametrize("kind", ["SystemExit", "annotations", "ClassVar", "__builtins__", ""])
def test_names_of_other_things_do_not_become_errors(kind: str) -> None:
    assert type(error_of(Failure(kind, "x"))) is InternalFailure


def test_channel_sends_frames_of_any_size_from_several_threads() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender, receiver = Channel(ours), Channel(theirs)
        big = Done(Prepared((PreparedRow(bytes(3_000_000), 1),)))
        threads = [
            threading.Thread(target=sender.send, args=(frame,)) for frame in (big, Ping(1), big, Ping(2))
        ]
        for thread in threads:
            thread.start()
        found = [receiver.receive() for _ in threads]
        for thread in threads:
            thread.join()
    assert found.count(big) == 2 and Ping(1) in found and Ping(2) in found


def test_channel_says_when_the_other_end_is_gone() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(encode(Ping(1))[:7])
        theirs.close()
        assert Channel(ours).receive() is None


def test_a_context_overflow_is_still_an_invalid_request() -> None:
    assert isinstance(error_of(failure_of(ContextOverflow("long"))), InvalidRequest)
