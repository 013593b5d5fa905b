"""The program of a preparer: what it is closed to, and that a hostile form of an answer kills it alone."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from phi4.configs import Phi4Config
from phi4.errors import InvalidMedia
from phi4.server.failures import PreparationFailed
from phi4.server.settings import ServerSettings
from phi4.server.worker.frames import StartPreparer
from phi4.server.worker.pool import PreparerPool
from phi4.server.worker.preparer import open_preparing
from phi4.server.worker.values import ModelCard, PrepareRequest
from phi4.testing.media import audio_bytes, chirp, image_bytes, ramp_picture


@pytest.fixture
def start(served_model: Path, served_config: Phi4Config) -> StartPreparer:
    """What an engine with the tiny model tells its preparers."""
    card = ModelCard("tiny", "onnx", "cpu", "float32", 2048, served_config.decoder.vocab_size)
    return StartPreparer(ServerSettings(str(served_model), prepare_timeout_s=20.0), card, str(served_model))


def user(part: dict[str, Any]) -> PrepareRequest:
    return PrepareRequest("chat", ({"role": "user", "content": [part]},))


def test_a_preparer_opens_no_file(start: StartPreparer, tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(image_bytes("PNG", ramp_picture(60, 60)))
    (tmp_path / "sound").write_bytes(audio_bytes(chirp(0.5), 16000))
    preparing = open_preparing(start)
    for kind, path in (("image", tmp_path / "picture"), ("audio", tmp_path / "sound")):
        for part in (
            {"type": f"{kind}_url", f"{kind}_url": {"url": str(path)}},
            {"type": kind, kind: str(path)},
        ):
            with pytest.raises(InvalidMedia, match="paths are not opened here"):
                preparing.prepare(user(part))


def test_a_preparer_connects_to_nobody(start: StartPreparer) -> None:
    preparing = open_preparing(start)
    with socket.create_server(("127.0.0.1", 0)) as sentinel:
        sentinel.setblocking(False)
        url = f"http://127.0.0.1:{sentinel.getsockname()[1]}/x"
        for kind in ("image_url", "audio_url", "video_url"):
            with pytest.raises(InvalidMedia, match="fetching is not allowed here"):
                preparing.prepare(user({"type": kind, kind: {"url": url}}))
        with pytest.raises(BlockingIOError):
            sentinel.accept()


def test_a_form_that_takes_for_ever_to_compile_ends_its_preparer_and_nothing_else(
    start: StartPreparer, caplog: pytest.LogCaptureFixture
) -> None:
    """An intersection of forty patterns, whose automaton doubles with each: no time and no memory suffice."""
    endless = {"allOf": [{"type": "string", "pattern": f".*{number}.*"} for number in range(40)]}
    hostile = PrepareRequest(
        "chat",
        ({"role": "user", "content": "?"},),
        response_format={"type": "json_schema", "json_schema": {"schema": endless}},
    )
    fair = PrepareRequest("tokenize", prompts=("the red house",))

    async def check() -> None:
        pool = PreparerPool(ServerSettings(str(start.path), preparers=1, prepare_timeout_s=20.0))
        try:
            await pool.start(start)
            before = await pool.prepare(fair, 60.0)
            with pytest.raises(PreparationFailed, match="died of it"):
                await pool.prepare(hostile, 60.0)
            assert await pool.prepare(fair, 60.0) == before and pool.deaths_total == 1
        finally:
            await pool.close()

    asyncio.run(check())
    # By its processor time, which is up long before its memory or the deadline of the request.
    assert f"ended with status {-signal.SIGPROF};" in caplog.text
