"""The life of a server: listen, start the processes, answer, drain when told to stop.

The first SIGTERM or SIGINT lets nobody in any more and waits for those who are; the second ends everything.
The address is taken before the model is loaded: a port that is in use should not cost a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from phi4.errors import InvalidRequest
from phi4.server.http.app import build_app
from phi4.server.http.protocol import patient_protocol
from phi4.server.settings import ServerSettings
from phi4.server.worker.client import EngineClient

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_HEAD_BYTES = 64 * 1024
_LAST_BYTES_S = 5


class _Server(uvicorn.Server):
    """uvicorn without signal handlers of its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(settings: ServerSettings, announce: Callable[[str, EngineClient], None]) -> int:
    """Serve until told to stop; returns an exit code: 0 = nothing was cut off.

    Args:
        settings: Everything.
        announce: Called with the server's URL once it answers there.

    Raises:
        InvalidRequest: The address cannot be used.
        Phi4Error: The model cannot be served.
    """
    listening = listen(settings.host, settings.port)
    with listening:
        return asyncio.run(_serve(settings, listening, announce))


def listen(host: str, port: int) -> socket.socket:
    """Take an address.

    Raises:
        InvalidRequest: It cannot be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        taken = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InvalidRequest(f"host {host!r} cannot be used: {error.strerror}; give an address") from None
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
    except OSError as error:
        taken.close()
        raise InvalidRequest(
            f"cannot listen at {host}, port {port}: {os.strerror(error.errno or 0)}; choose another --port"
        ) from None
    return taken


async def _serve(
    settings: ServerSettings, listening: socket.socket, announce: Callable[[str, EngineClient], None]
) -> int:
    stops = _stop_requests()
    client = EngineClient(settings)
    server = _Server(_config(client, settings))  # what it refuses, it refuses before a model is loaded
    stopped = asyncio.create_task(stops.get())
    try:
        starting = asyncio.create_task(client.start())
        await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return 0
        starting.result()
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not (server.started or serving.done()):
            await asyncio.sleep(0.01)
        announce(_url(listening), client)
        await asyncio.wait((serving, stopped), return_when=asyncio.FIRST_COMPLETED)
        finished = await _drain(client, stops) if stopped.done() else False
        server.should_exit = True
        await serving
        return 0 if finished else 1
    finally:
        stopped.cancel()
        await client.close()


async def _drain(client: EngineClient, stops: asyncio.Queue[int]) -> bool:
    """Let requests under way finish; another signal ends that."""
    _log.info("draining: %d requests under way", client.admission.under_way)
    draining = asyncio.create_task(client.drain())
    again = asyncio.create_task(stops.get())
    await asyncio.wait((draining, again), return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    if draining.done():
        return draining.result()
    draining.cancel()
    await asyncio.gather(draining, return_exceptions=True)
    await client.close()
    return False


def _stop_requests() -> asyncio.Queue[int]:
    """Signals that ask to stop, as they come."""
    stops: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stops.put_nowait, int(number))
    return stops


def _config(client: EngineClient, settings: ServerSettings) -> uvicorn.Config:
    return uvicorn.Config(
        build_app(client, settings),
        http=patient_protocol(settings.header_timeout_s, settings.max_connections),
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        log_level="warning",
        server_header=False,
        # A client could otherwise name any address as its own.
        proxy_headers=False,
        h11_max_incomplete_event_size=_HEAD_BYTES,
        timeout_keep_alive=max(1, int(settings.header_timeout_s)),
        timeout_graceful_shutdown=_LAST_BYTES_S,
    )


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
