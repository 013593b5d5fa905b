"""A server that computes nothing: `python -m load.client.echo PORT PIECES`.

It answers every POST with the events of a chat stream, each in a chunk of its own, as fast as it can. What a
client reaches here is what it could measure at most, and what it spends on a piece is its own cost.
"""

from __future__ import annotations

import asyncio
import json
import sys

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """A chunk of a body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(text: str) -> bytes:
    """An event with some text, as long as our server's are."""
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    head = {"id": "chatcmpl-" + 32 * "0", "object": "chat.completion.chunk", "created": 0, "model": "echo"}
    return b"data: " + json.dumps({**head, "usage": None, "choices": [choice]}).encode() + b"\n\n"


async def main(port: int, pieces: int) -> None:
    """Serve until ended."""
    usage = {"prompt_tokens": 0, "completion_tokens": pieces}
    last = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
    end = chunk(last) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if head.startswith(b"GET"):
                    writer.write(EMPTY)
                    continue
                length = next(line for line in head.lower().split(b"\r\n") if b"content-length" in line)
                await reader.readexactly(int(length.partition(b":")[2]))
                writer.write(HEAD)
                for number in range(pieces):
                    writer.write(chunk(event(f" {number}")))
                    await writer.drain()
                    await asyncio.sleep(0)  # others are served in between, as by a real server
                writer.write(end)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
