"""Media given as http(s) URLs, put in place before anything is prepared; off unless an operator asks for it.

There is one fetcher in this package, `phi4.processing.remote`, with its checks of addresses, redirects, size
and time. Here is only where the URLs stand in a conversation, how many are fetched side by side and for how
long, and that what they bring counts as if the client had sent it. Text is never searched for links.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from phi4.errors import InvalidMedia
from phi4.processing.media import MediaLimits
from phi4.processing.remote import fetch
from phi4.server.http.errors import InvalidField
from phi4.server.limits import Ticket
from phi4.server.settings import ServerSettings
from phi4.server.worker.values import PrepareRequest

_PLACES = {"image_url": "url", "audio_url": "url", "video_url": "url", "file": "file_url"}
"""Kind of a part -> the field of its object that may hold a URL."""
_AT_A_TIME = 8
"""Fetched side by side, of all requests together."""
_OF_ONE = 3
"""Of those, of one request: however slow its servers are, URLs of others are fetched beside them."""
Fetch = Callable[[str, int, float], bytes]
Place = tuple[dict[str, Any], str, str]
"""A part that names a URL, how errors call the place, and the URL."""


class Fetcher:
    """Replaces URLs by what is behind them.

    Args:
        settings: Whether at all, and the limits.
        fetch_one: Fetches a URL with a limit of bytes and seconds; tests have servers of their own.
    """

    def __init__(self, settings: ServerSettings, fetch_one: Fetch = fetch) -> None:
        self._allowed = settings.allow_remote
        self._limits: MediaLimits = settings.media_limits
        self._most = settings.max_media
        self._longest_s = settings.fetch_timeout_s
        self._fetch_one = fetch_one
        # Threads of its own: a name that takes long to resolve must not keep other work from its threads.
        self._threads = ThreadPoolExecutor(_AT_A_TIME, "phi4-fetch")

    async def fetched(self, request: PrepareRequest, ticket: Ticket) -> PrepareRequest:
        """The request with every URL replaced by a `data:` URL.

        Raises:
            InvalidMedia: Fetching is off, or refused, or did not work.
            ServerFailure: What came does not fit beside the other requests.
        """
        places = remote_places(request.messages)
        if not places:
            return request
        if not self._allowed:
            raise InvalidField(
                places[0][1], "is a URL, and this server fetches none; send the file as a data: URL"
            )
        if len(places) > self._most:
            raise InvalidField("messages", f"name {len(places)} URLs, at most {self._most} are fetched")
        parts = await self._all(places, ticket)
        found = {id(place[0]): part for place, part in zip(places, parts, strict=True)}
        return replace(request, messages=tuple(_with(message, found) for message in request.messages))

    async def _all(self, places: Sequence[Place], ticket: Ticket) -> list[dict[str, Any]]:
        """What is to stand in these places, fetched side by side before one deadline."""
        seconds = min(self._longest_s, ticket.remaining())
        deadline = time.monotonic() + seconds
        beside = asyncio.Semaphore(_OF_ONE)
        tasks = [asyncio.create_task(self._replaced(place, ticket, deadline, beside)) for place in places]
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.gather(*tasks)
        except TimeoutError:
            raise InvalidMedia(
                f"messages: what their URLs name did not arrive within {seconds:.0f} s; give the files"
            ) from None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _replaced(
        self, place: Place, ticket: Ticket, deadline: float, beside: asyncio.Semaphore
    ) -> dict[str, Any]:
        part, where, url = place
        try:
            async with beside:
                text = await asyncio.get_running_loop().run_in_executor(
                    self._threads, self._data_url, url, deadline
                )
        except InvalidMedia as error:
            raise InvalidMedia(f"{where}: {error}") from None
        ticket.hold(len(text))
        kind = part["type"]
        kept = {name: value for name, value in part[kind].items() if name != _PLACES[kind]}
        return {"type": kind, kind: {"file_data" if kind == "file" else "url": text, **kept}}

    def _data_url(self, url: str, deadline: float) -> str:
        """Run by a thread, which nobody can stop: its own time ends with that of its request."""
        seconds = min(self._limits.remote_timeout_s, deadline - time.monotonic())
        content = base64.b64encode(self._fetch_one(url, self._limits.max_remote_bytes, seconds))
        return "data:application/octet-stream;base64," + content.decode("ascii")


def remote_places(messages: Sequence[dict[str, Any]]) -> list[Place]:
    """Parts that name a URL to fetch."""
    found = []
    for number, message in enumerate(messages):
        content = message.get("content")
        for index, part in enumerate(content if isinstance(content, list) else ()):
            kind = part.get("type")
            field = _PLACES.get(kind, "")
            medium = part.get(kind)
            url = medium.get(field) if isinstance(medium, dict) and field else None
            if isinstance(url, str) and url[:8].lower().startswith(("http://", "https://")):
                found.append((part, f"messages[{number}].content[{index}].{kind}.{field}", url))
    return found


def _with(message: dict[str, Any], found: dict[int, dict[str, Any]]) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": [found.get(id(part), part) for part in content]}
