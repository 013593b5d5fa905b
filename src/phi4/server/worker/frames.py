"""What crosses the border of a process: a length of 4 bytes, then one tagged value as msgpack.

    channel.send(Ping(1))              # in a child: blocking, any thread
    while (frame := channel.receive()) is not None: ...

Every frame is one of the classes of this file and is checked against its fields on arrival, so the worst a
broken or captured process can send is a value of the right shape. Nothing is ever unpickled.
"""

from __future__ import annotations

import socket
import struct
import threading

import msgspec

from phi4 import errors
from phi4.errors import InvalidRequest, Phi4Error
from phi4.server import failures
from phi4.server.failures import InternalFailure
from phi4.server.settings import ServerSettings
from phi4.server.worker.values import GenerateOptions, ModelCard, Prepared, PrepareRequest, ServerEvent

MAX_FRAME_BYTES = 2**31 - 1
"""More than any frame that limits let through; a length beyond it means the stream is broken."""
_LENGTH = struct.Struct(">I")


class BrokenStream(Exception):
    """Bytes that are no frame: the process at the other end cannot be trusted any further."""


class Frame(msgspec.Struct, frozen=True, tag=True):
    """Root of all frames."""


class Failure(Frame, frozen=True):
    """An error on its way to another process: the name of its class, and its message."""

    kind: str
    message: str


class StartEngine(Frame, frozen=True):
    """The first frame to an engine."""

    settings: ServerSettings


class StartPreparer(Frame, frozen=True):
    """The first frame to a preparer, with what the engine found out about the model: it is looked for once.

    Attributes:
        settings: The server's.
        card: What the engine serves.
        path: Folder of the opened files.
    """

    settings: ServerSettings
    card: ModelCard
    path: str


class EngineReady(Frame, frozen=True):
    """The engine has its weights and has run every part once.

    Attributes:
        card: What it serves.
        path: The folder of the model's files.
        tokens_per_s: Tokens of requests, prompts and answers, that it gets through, roughly.
    """

    card: ModelCard
    path: str
    tokens_per_s: float


class PreparerReady(Frame, frozen=True):
    """The preparer has its tokenizer."""


class NotStarted(Frame, frozen=True):
    """The process cannot start, and why; it ends after this."""

    failure: Failure


class Ping(Frame, frozen=True):
    """Are you there?"""

    number: int


class Pong(Frame, frozen=True):
    """The process is there.

    Attributes:
        number: Of the ping.
        turn_s: How long the engine's loop has been in the turn it is in now; 0 = it waits for work.
        allowed_s: How long a turn with that work may take before it counts as hung.
    """

    number: int
    turn_s: float
    allowed_s: float


class Look(Frame, frozen=True):
    """How do things stand? Answered by the engine's loop itself, between two turns."""

    number: int


class Looked(Frame, frozen=True):
    """Fields of the engine's statistics, by name."""

    number: int
    stats: dict[str, float]


class Submit(Frame, frozen=True):
    """Answer a row `count` times: the answers are called `first_id` and so on.

    Attributes:
        first_id: Name of the first answer, never used before in this process.
        first_index: What the first answer's events are to carry as `index`.
        count: How many; answer k of a row with a seed draws with seed + k.
        blob: `PreparedRow.blob`.
        options: How.
        max_new_tokens: Longest answer, already decided.
    """

    first_id: int
    first_index: int
    count: int
    blob: bytes
    options: GenerateOptions
    max_new_tokens: int


class Cancel(Frame, frozen=True):
    """Nobody waits for these answers any more."""

    ids: tuple[int, ...]


class Events(Frame, frozen=True):
    """What became known in one step of the engine: (answer, event)."""

    items: tuple[tuple[int, ServerEvent], ...]


class Failed(Frame, frozen=True):
    """An answer ended with an error."""

    id: int
    failure: Failure


class Job(Frame, frozen=True):
    """Prepare this."""

    request: PrepareRequest


class Done(Frame, frozen=True):
    """The result of a job: prepared, or why not."""

    result: Prepared | None = None
    failure: Failure | None = None


class Stop(Frame, frozen=True):
    """End, at once and in good order."""


AnyFrame = (
    Failure
    | StartEngine
    | StartPreparer
    | EngineReady
    | PreparerReady
    | NotStarted
    | Ping
    | Pong
    | Look
    | Looked
    | Submit
    | Cancel
    | Events
    | Failed
    | Job
    | Done
    | Stop
)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnyFrame)


def encode(frame: Frame) -> bytes:
    """A frame with its length in front.

    Raises:
        InvalidRequest: It holds what msgpack has no form for: a number beyond 64 bits, half a surrogate pair,
            or values nested without end; all of which come from a client's JSON.
    """
    try:
        body = _encoder.encode(frame)
    except (OverflowError, UnicodeEncodeError, RecursionError, TypeError):
        raise InvalidRequest(
            "the request holds a number beyond 64 bits, text that is no valid Unicode, or too many levels"
        ) from None
    if len(body) > MAX_FRAME_BYTES:
        raise InvalidRequest(
            f"the request takes {len(body):,} bytes; at most {MAX_FRAME_BYTES:,} are possible"
        )
    return _LENGTH.pack(len(body)) + body


def body_length(head: bytes) -> int:
    """Length of the body that follows these 4 bytes.

    Raises:
        BrokenStream: No frame is so long.
    """
    (length,) = _LENGTH.unpack(head)
    if not 0 < length <= MAX_FRAME_BYTES:
        raise BrokenStream(f"a frame of {length} bytes")
    return int(length)


def decode(body: bytes | bytearray) -> Frame:
    """The frame in a body.

    Raises:
        BrokenStream: It is none.
    """
    try:
        frame: Frame = _decoder.decode(body)
        return frame
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenStream(f"{len(body)} bytes that are no frame: {error}") from None


def failure_of(error: BaseException) -> Failure:
    """An error as a frame; one that is not ours loses its message, which could hold anything."""
    if isinstance(error, Phi4Error):
        return Failure(type(error).__name__, str(error))
    return Failure(InternalFailure.__name__, "something went wrong inside the server")


def error_of(failure: Failure) -> Phi4Error:
    """The error a frame stands for; an unknown name stands for a fault of ours."""
    for module in (errors, failures):
        kind = getattr(module, failure.kind, None)
        if isinstance(kind, type) and issubclass(kind, Phi4Error):
            return kind(failure.message)
    return InternalFailure("something went wrong inside the server")


class Channel:
    """The child's end of a connection: blocking, sends from any thread, receives in one."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._sending = threading.Lock()

    def send(self, frame: Frame) -> None:
        """Write a frame whole.

        Raises:
            OSError: Nobody reads any more.
        """
        data = encode(frame)
        with self._sending:
            self._socket.sendall(data)

    def receive(self) -> Frame | None:
        """The next frame; None = the other end has closed.

        Raises:
            BrokenStream: What came is no frame.
        """
        head = self._read(_LENGTH.size)
        if head is None:
            return None
        body = self._read(body_length(bytes(head)))
        return None if body is None else decode(body)

    def _read(self, size: int) -> bytearray | None:
        data = bytearray(size)
        view, filled = memoryview(data), 0
        while filled < size:
            count = self._socket.recv_into(view[filled:])
            if count == 0:
                return None
            filled += count
        return data
