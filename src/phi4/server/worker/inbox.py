"""A child's side of its connection: a thread of its own reads frames, so that somebody always listens.

That thread answers pings, whatever the main thread is doing, and ends the process when it is told to or when
the server has gone: no child outlives its server, not even one whose main thread hangs.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

from phi4.server.worker.frames import BrokenStream, Channel, Ping, Pong, Stop


def connect(descriptor: int, name: str) -> Channel:
    """Take over the socket a child was started with.

    Signals that end a server are for the server: a service manager or a terminal may send them to its
    children as well, which then still have answers to finish.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s %(levelname)s {name}: %(message)s")
    return Channel(socket.socket(fileno=descriptor))


class Inbox:
    """Frames for the main thread.

    Args:
        channel: Where they come from.
        turn: How long the main thread's turn has lasted and how long it may, in seconds; asked at each ping.
    """

    def __init__(self, channel: Channel, turn: Callable[[], tuple[float, float]] | None = None) -> None:
        self._channel = channel
        self._turn = turn
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, name="inbox", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def get(self) -> Any:
        """The next frame or other item, waiting for it."""
        return self._items.get()

    def get_nowait(self) -> Any:
        """The next one if one is there, else None."""
        try:
            return self._items.get_nowait()
        except queue.Empty:
            return None

    def put(self, item: Any) -> None:
        """Add an item of this process's own; from any thread."""
        self._items.put(item)

    def _read(self) -> None:
        try:
            while (frame := self._channel.receive()) is not None and not isinstance(frame, Stop):
                if isinstance(frame, Ping):
                    turn_s, allowed_s = self._turn() if self._turn is not None else (0.0, 0.0)
                    self._channel.send(Pong(frame.number, turn_s, allowed_s))
                else:
                    self._items.put(frame)
        except (OSError, BrokenStream):
            os._exit(1)
        os._exit(0)
