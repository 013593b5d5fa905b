"""HTTP/1.1 over one connection that is kept, as a client: just what talking to a measured server takes.

A client shares the machine with the server it measures, so what it costs is in every figure. This one reads
heads, bodies of a known length and bodies in chunks, and knows nothing else: no redirects, no TLS, no
compression. What it costs is measured, see `echo.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

Hear = Callable[[int, bytes], None]
"""Is told the status and a piece of the body."""
_CRLF = b"\r\n"


class Wire:
    """One connection, opened when it is first needed and again after it was lost.

    Args:
        host: Address of the server.
        port: Its port.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def exchange(self, request: bytes, hear: Hear) -> int:
        """Send a request and read its answer to the end; returns the status.

        Args:
            request: Head and body as they go over the wire.
            hear: Is told each piece of the body as soon as it is there.

        Raises:
            OSError: There is no connection.
            EOFError: The server closed it before the answer was whole.
            ValueError: What came is no HTTP.
        """
        try:
            reader, head = await self._head(request)
            status, headers = _parsed(head)
            if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
                await _chunks(reader, status, hear)
            else:
                hear(status, await reader.readexactly(int(headers.get(b"content-length", b"0"))))
        except BaseException:
            self.abort()  # the rest of the answer may still come: nothing else can be asked here
            raise
        if headers.get(b"connection", b"").lower() == b"close":
            self.abort()
        return status

    def abort(self) -> None:
        """Go away without a farewell."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _head(self, request: bytes) -> tuple[asyncio.StreamReader, bytes]:
        """Send a request and read the head of its answer, on the old connection if the server kept it."""
        if self._streams is not None:
            try:
                return await self._sent(*self._streams, request)
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                self.abort()
                if getattr(error, "partial", b""):
                    raise
        self._streams = await asyncio.open_connection(self._host, self._port)
        return await self._sent(*self._streams, request)

    async def _sent(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
    ) -> tuple[asyncio.StreamReader, bytes]:
        writer.write(request)
        return reader, await reader.readuntil(_CRLF + _CRLF)


async def _chunks(reader: asyncio.StreamReader, status: int, hear: Hear) -> None:
    while length := int((await reader.readuntil(_CRLF)).partition(b";")[0], 16):
        hear(status, (await reader.readexactly(length + len(_CRLF)))[:-2])
    await reader.readuntil(_CRLF)


def _parsed(block: bytes) -> tuple[int, dict[bytes, bytes]]:
    first, *lines = block[:-4].split(_CRLF)
    version, _, rest = first.partition(b" ")
    if not version.startswith(b"HTTP/1."):
        raise ValueError(f"this is no HTTP: {first[:80]!r}")
    fields = (line.partition(b":") for line in lines)
    return int(rest[:3]), {name.strip().lower(): value.strip() for name, _, value in fields}
