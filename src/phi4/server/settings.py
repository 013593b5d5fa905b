"""Every option of a server, with a default that is bounded: nothing grows with what strangers send.

`ServerSettings` is made by `phi4 serve` out of the command line, checked once, and then handed to the
routes, the limits and the processes; none of them reads an environment variable or a file of its own.
"""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass
from numbers import Real
from typing import Any

from phi4.configs.rope import RopePolicy
from phi4.errors import InvalidRequest
from phi4.processing.chat import Placement
from phi4.processing.media import MediaLimits
from phi4.types import Modality

SERVER_MEDIA_LIMITS = MediaLimits(
    max_image_bytes=20 * 2**20,
    max_image_px=2**25,
    max_image_side_px=16384,
    max_audio_bytes=100 * 2**20,
    max_audio_s=1800.0,
    max_channels=8,
    max_remote_bytes=20 * 2**20,
    remote_timeout_s=10.0,
    max_video_bytes=100 * 2**20,
    max_video_s=600.0,
    max_frames=32,
    max_document_bytes=20 * 2**20,
    max_decode_s=20.0,
)
"""What strangers' media may cost: less than what one's own may on the command line."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9._~:\[\]-]*")
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class ServerSettings:
    """How a server runs.

    Attributes:
        model: "nano", a directory or a hub id, as `phi4.load` takes it.
        modalities: Parts to load; None = all the model has, before the server says it is ready.
        runner: "onnx" or "torch"; None = as `phi4.load` chooses.
        device: As `phi4.load`.
        provider: The same.
        dtype: The same.
        attention: The same.
        rope_policy: The same.
        max_crops: The same.
        placement: The same.
        speculate: The same.
        voice_activity: The same; preparers read the file when they start, and no request names one.
        batch_invariant: Compute answers so that none depends on how many others are computed with it, which
            takes a lone one of a large model up to a tenth longer; see `OrtRunner`.
        served_names: Names a request may call the model by; empty = the model's own (`ModelCard.name`).
        adapters: (name, directory) of users' adapters an operator offers, PEFT layout.
        prefix_cache_bytes: Cache memory kept for what prompts begin with, so that it is computed once; 0 =
            none.
        encoder_cache_bytes: Encoder outputs kept for pictures and recordings that come again; 0 = none.
        cache_bytes: Cache memory of all sequences together, kept ones included; None = what the runner has.

        host: Address to listen at.
        port: Port; 0 = any that is free, printed at start.
        allowed_hosts: Values of the Host header that are answered beside `host` and the names of this
            machine's loopback. "*" = any.
        allowed_origins: Sites whose pages may ask through a browser and read the answers, each as a browser
            calls it: "https://chat.example", "http://localhost:3000", "app://obsidian.md".
        key_digests: SHA-256 of each key in hexadecimal; empty = no key is asked for, which is refused when
            `host` is no loopback address unless `open_to_all`.
        open_to_all: Serve other machines without keys.
        allow_remote: Fetch media given as http(s) URLs, from public addresses.
        page: Serve the small chat page, to this machine only.
        log_prompts: Write prompts and answers to the log.

        max_requests: Requests under way, waiting ones included.
        max_requests_per_key: Of those, of one key.
        max_running: Answers in the engine at a time; the others wait for their turn.
        max_wait_s: Longest time a request may be likely to wait for its turn, as turns went lately; one that
            would wait longer is refused when it comes. A turn that takes longer than `queue_timeout_s` to
            come after all ends it.
        max_prompt_tokens: Longest prompt of one request, all its rows together; None = the model's context
            for each row.
        max_waiting_tokens: Prompt and answer tokens of all requests under way together.
        max_body_bytes: Largest body, counted while it is read.
        max_held_bytes: Bodies and prepared prompts of all requests under way together.
        max_media: Pictures and recordings in one request.
        max_rows: Prompts, or parts of a recording, in one request; also the most answers to it (rows times
            `n`).
        max_choices: Largest `n`.
        max_new_tokens: Longest answer one may ask for; None = the model's context.
        default_new_tokens: Longest answer when a request does not say; of a long recording as many as its
            sound has, of `/v1/completions` 16 as with OpenAI. Never over `max_new_tokens`.
        max_queue_tokens_per_turn: How many tokens of work a key gets each time its turn comes.
        media_limits: What one medium may cost.

        preparers: Processes that decode what clients send.
        preparer_memory_bytes: Address space each may add to what it has when it is idle.
        prepare_timeout_s: Longest preparation of one request, its wait for a free process excluded.
        body_timeout_s: Longest time for a body to arrive.
        fetch_timeout_s: Longest time for all that the URLs of a request name, where fetching is allowed.
        queue_timeout_s: Longest wait for a free preparer, and for a turn in the engine.
        first_token_timeout_s: Longest time from its turn to its first token.
        request_timeout_s: Longest life of a request, everything included.
        drain_timeout_s: After SIGTERM, how long requests under way may take to finish.
        hang_s: Silence after which the engine counts as hung. A step may honestly take longer on a slow
            machine: the engine times its longest at start, and gets four times that if it is more.
        start_timeout_s: Longest start of the engine, which reads the weights.
        stream_interval_s: Least time between two pieces of an answer; tokens in between come together. First
            and last ones never wait. 0 = every token as it comes.
        send_buffer_events: Events kept for a client that reads slowly, before it is cut off.
        send_timeout_s: Longest time a client may take to accept what is being sent.
        header_timeout_s: Longest time for the head of a request to arrive, and for an idle connection to
            stay.
        max_connections: Connections open at a time, idle ones included; more are closed at once.
    """

    model: str = "nano"
    modalities: tuple[Modality, ...] | None = None
    runner: str | None = None
    device: str | None = None
    provider: str | None = None
    dtype: str | None = None
    attention: str | None = None
    rope_policy: RopePolicy = "reference"
    max_crops: int | None = None
    placement: Placement = "inline"
    speculate: bool = True
    voice_activity: str | None = None
    batch_invariant: bool = True
    served_names: tuple[str, ...] = ()
    adapters: tuple[tuple[str, str], ...] = ()
    prefix_cache_bytes: int = 2**30
    encoder_cache_bytes: int = 2**28
    cache_bytes: int | None = None

    host: str = "127.0.0.1"
    port: int = 8000
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    key_digests: tuple[str, ...] = ()
    open_to_all: bool = False
    allow_remote: bool = False
    page: bool = True
    log_prompts: bool = False

    max_requests: int = 128
    max_requests_per_key: int = 64
    max_running: int = 16
    max_wait_s: float = 30.0
    max_prompt_tokens: int | None = None
    max_waiting_tokens: int = 1_000_000
    max_body_bytes: int = 128 * 2**20
    max_held_bytes: int = 2 * 2**30
    max_media: int = 32
    max_rows: int = 128
    max_choices: int = 16
    max_new_tokens: int | None = None
    default_new_tokens: int = 512
    max_queue_tokens_per_turn: int = 2048
    media_limits: MediaLimits = SERVER_MEDIA_LIMITS

    preparers: int = 2
    preparer_memory_bytes: int = 2 * 2**30
    prepare_timeout_s: float = 30.0
    body_timeout_s: float = 60.0
    fetch_timeout_s: float = 20.0
    queue_timeout_s: float = 120.0
    first_token_timeout_s: float = 300.0
    request_timeout_s: float = 1800.0
    drain_timeout_s: float = 60.0
    hang_s: float = 5.0
    start_timeout_s: float = 900.0
    stream_interval_s: float = 0.02
    send_buffer_events: int = 1024
    send_timeout_s: float = 30.0
    header_timeout_s: float = 10.0
    max_connections: int = 1024

    def __post_init__(self) -> None:
        """Refuse values that cannot work together or at all.

        Raises:
            InvalidRequest: Names the option, its value and what is valid.
        """
        for name, (low, high) in BOUNDS.items():
            check_bound(name, getattr(self, name), low, high)
        for digest in self.key_digests:
            if not _DIGEST.fullmatch(digest):
                raise InvalidRequest("a key digest is not 64 hexadecimal digits; give the SHA-256 of a key")
        if not (self.key_digests or self.open_to_all or self.is_local):
            raise InvalidRequest(
                f"host {self.host!r} can be reached from other machines, and no key is asked for: give "
                "--api-key, or --open-to-all if everybody there may use it"
            )
        for origin in self.allowed_origins:
            if not _ORIGIN.fullmatch(origin):
                raise InvalidRequest(
                    f"allowed origin {origin!r}: give scheme://host or scheme://host:port without a path; "
                    "any site can call itself 'null', and '*' would be all of them"
                )
        names = [name for name, _ in self.adapters]
        if len(set(names)) < len(names):
            raise InvalidRequest(f"adapters are called {names!r}; give each its own name")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host == "localhost" or (
            _is_address(self.host) and ipaddress.ip_address(self.host).is_loopback
        )

    @property
    def hosts(self) -> tuple[str, ...]:
        """Values of the Host header (port aside) that are answered; "*" among them = any."""
        own = f"[{self.host}]" if ":" in self.host else self.host
        return tuple(dict.fromkeys((*_LOCAL_NAMES, own, *self.allowed_hosts)))


_LARGE = 2**53
BOUNDS: dict[str, tuple[float, float]] = {
    "port": (0, 65535),
    "prefix_cache_bytes": (0, _LARGE),
    "encoder_cache_bytes": (0, _LARGE),
    "cache_bytes": (2**20, _LARGE),
    "max_crops": (1, 1024),
    "max_requests": (1, 100_000),
    "max_requests_per_key": (1, 100_000),
    "max_running": (1, 1024),
    "max_wait_s": (0.1, 86_400),
    "max_prompt_tokens": (1, _LARGE),
    "max_waiting_tokens": (1, _LARGE),
    "max_body_bytes": (1024, 2**32),
    "max_held_bytes": (2**20, _LARGE),
    "max_media": (0, 4096),
    "max_rows": (1, 100_000),
    "max_choices": (1, 128),
    "max_new_tokens": (1, _LARGE),
    "default_new_tokens": (1, _LARGE),
    "max_queue_tokens_per_turn": (1, _LARGE),
    "preparers": (1, 64),
    "preparer_memory_bytes": (2**28, _LARGE),
    "prepare_timeout_s": (0.1, 3600),
    "body_timeout_s": (0.1, 3600),
    "fetch_timeout_s": (0.1, 3600),
    "queue_timeout_s": (0.1, 86_400),
    "first_token_timeout_s": (0.1, 86_400),
    "request_timeout_s": (0.1, 86_400),
    "drain_timeout_s": (0, 86_400),
    "hang_s": (1, 3600),
    "start_timeout_s": (1, 86_400),
    "stream_interval_s": (0, 60),
    "send_buffer_events": (16, 1_000_000),
    "send_timeout_s": (0.1, 3600),
    "header_timeout_s": (0.1, 3600),
    "max_connections": (1, 1_000_000),
}
"""Number of an option -> the least and the most it may be. None stays None where that is the default."""
_OPTIONAL = {"cache_bytes", "max_crops", "max_prompt_tokens", "max_new_tokens"}


def check_bound(name: str, value: Any, low: float, high: float) -> None:
    """Refuse a number outside its bounds.

    Raises:
        InvalidRequest: Names the option, its value and the bounds.
    """
    if value is None and name in _OPTIONAL:
        return
    whole = isinstance(low, int) and not name.endswith("_s")
    fits = isinstance(value, int if whole else Real) and not isinstance(value, bool)
    if not fits or not math.isfinite(value) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise InvalidRequest(f"{name} is {value!r}; give {kind} from {low:g} to {high:g}")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
