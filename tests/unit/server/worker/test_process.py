"""Children: started, spoken to, ended, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from phi4.server.worker.frames import Ping, Pong, Stop, encode
from phi4.server.worker.process import Child, Gone

Program = Callable[[str], str]
ECHO = """
channel = connect(descriptor, "echo")
while (frame := channel.receive()) is not None:
    channel.send(frame)
"""
LISTENS = """
inbox = Inbox(connect(descriptor, "stub"), lambda: (1.5, 5.0))
inbox.start()
while True:
    pass
"""


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until_gone(pid: int, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while is_alive(pid):
        assert time.monotonic() < end, f"process {pid} is still there"
        time.sleep(0.01)


def test_frames_go_there_and_back(program: Program) -> None:
    async def check() -> None:
        child = await Child.spawn(program(ECHO))
        child.send(Ping(7))
        assert await child.receive() == Ping(7)
        assert not child.gone
        await child.end()
        assert child.gone

    asyncio.run(check())


def test_a_child_whose_main_thread_spins_still_answers_and_stops_when_told(program: Program) -> None:
    async def check() -> None:
        child = await Child.spawn(program(LISTENS))
        child.send(Ping(1))
        assert await child.receive() == Pong(1, 1.5, 5.0)
        child.send(Stop())
        with pytest.raises(Gone):
            await asyncio.wait_for(child.receive(), 10)
        assert await child.end() == 0

    asyncio.run(check())


def test_a_killed_child_is_noticed_at_once(program: Program) -> None:
    async def check() -> None:
        child = await Child.spawn(program(ECHO))
        child.send(Ping(1))
        await child.receive()
        began = time.monotonic()
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(Gone):
            await asyncio.wait_for(child.receive(), 10)
        assert time.monotonic() - began < 1.0
        assert await child.end() == -signal.SIGKILL

    asyncio.run(check())


def test_signals_meant_for_the_server_do_not_end_its_children(program: Program) -> None:
    async def check() -> None:
        child = await Child.spawn(program(ECHO))
        child.send(Ping(1))
        await child.receive()
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(child.pid, number)
        child.send(Ping(2))
        assert await child.receive() == Ping(2)
        await child.end()

    asyncio.run(check())


def test_nonsense_from_a_child_counts_as_its_end(program: Program) -> None:
    async def check() -> None:
        child = await Child.spawn(
            program("import socket\nsocket.socket(fileno=descriptor).sendall(b'\\xff' * 100)\ntime.sleep(60)")
        )
        with pytest.raises(Gone):
            await child.receive()
        await child.end()

    asyncio.run(check())


def test_sending_to_a_child_that_has_ended_is_no_error(program: Program) -> None:
    async def check() -> None:
        child = await Child.spawn(program("return"))
        with pytest.raises(Gone):
            await child.receive()
        for _ in range(10):
            child.send(Ping(1))
        await child.end()

    asyncio.run(check())


def test_the_folder_a_server_starts_in_is_no_place_to_import_from(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = tmp_path / "here"
    evil.mkdir()
    (evil / "msgspec.py").write_text("raise SystemExit('imported from the working folder')")
    name = program(ECHO)
    monkeypatch.chdir(evil)

    async def check() -> None:
        child = await Child.spawn(name)
        child.send(Ping(1))
        assert await child.receive() == Ping(1)
        await child.end()

    asyncio.run(check())


PARENT = """
import asyncio, os, sys
from phi4.server.worker.frames import Ping
from phi4.server.worker.process import Child
async def main():
    child = await Child.spawn(sys.argv[1])
    child.send(Ping(1))
    await child.receive()
    print(child.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def test_no_child_outlives_a_server_that_is_killed(program: Program) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, program(LISTENS)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    parent.wait()
    wait_until_gone(pid)


def test_a_frame_is_written_once_when_it_is_encoded_already(program: Program) -> None:
    async def check() -> None:
        child = await Child.spawn(program(ECHO), one_thread=True)
        child.write(encode(Ping(3)))
        assert await child.receive() == Ping(3)
        await child.end()

    asyncio.run(check())
