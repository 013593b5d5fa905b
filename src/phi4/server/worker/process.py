"""A child process as its parent sees it: started, spoken to in frames, killed, and gone.

Children inherit nothing but their end of a socket pair, standard error and the environment. They end by
themselves when that socket closes (`inbox`), so none outlives the server, however the server ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import phi4
from phi4.server.worker.frames import BrokenStream, Frame, Stop, body_length, decode, encode

_ROOT = str(Path(phi4.__file__).resolve().parents[1])
_READ_AHEAD_BYTES = 2**20
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Gone(Exception):
    """The process at the other end has ended, or sends what is no frame."""


class Child:
    """A running process and the connection to it; make one with `spawn`."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def spawn(cls, module: str, *, one_thread: bool = False) -> Child:
        """Start a program of ours.

        Args:
            module: It has a function `main` that takes the number of the socket's file descriptor.
            one_thread: Keep its arithmetic to one thread.

        Raises:
            OSError: The system has no room for another process.
        """
        ours, theirs = socket.socketpair()
        try:
            process = subprocess.Popen(
                _command(module, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=os.environ | dict.fromkeys(_THREADS, "1") if one_thread else None,
                start_new_session=True,  # Ctrl-C in a terminal is for the server alone, which then drains
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_READ_AHEAD_BYTES)
        return cls(process, reader, writer)

    @property
    def gone(self) -> bool:
        """Whether its end of the connection is closed and nothing it sent is left to read."""
        return self._reader.at_eof() or self._process.poll() is not None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, frame: Frame) -> None:
        """Write a frame; nothing happens when the process is gone already, which `receive` tells.

        Raises:
            InvalidRequest: The frame cannot be written, see `frames.encode`.
        """
        self.write(encode(frame))

    def write(self, data: bytes) -> None:
        """`send`, of a frame that is encoded already."""
        if not self._writer.is_closing():
            self._writer.write(data)

    async def receive(self) -> Frame:
        """The next frame.

        Raises:
            Gone: There will be none.
        """
        try:
            length = body_length(await self._reader.readexactly(4))
            return decode(await self._reader.readexactly(length))
        except (EOFError, OSError, BrokenStream) as error:
            raise Gone(str(error)) from None

    def kill(self) -> None:
        """End it without asking."""
        self._process.kill()

    async def end(self, grace_s: float = 0.0) -> int:
        """End it and wait until it is gone; returns its exit status.

        Args:
            grace_s: Time to stop by itself before it is killed.
        """
        try:
            if grace_s:
                self.send(Stop())
                with contextlib.suppress(TimeoutError, Gone):
                    async with asyncio.timeout(grace_s):
                        while True:
                            await self.receive()
        finally:
            self.kill()
            self._writer.close()
            status = await asyncio.to_thread(self._process.wait)
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        return status


def _command(module: str, descriptor: int) -> list[str]:
    # -P: the folder a server happens to be started in is no place to import from. This package's own folder
    # comes last, for a checkout that is not installed.
    code = f"import sys; sys.path.append({_ROOT!r}); from {module} import main; main({descriptor})"
    return [sys.executable, "-P", "-c", code]
