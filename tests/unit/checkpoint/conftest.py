"""A tiny model with random weights, its directory in each layout, and a hub on loopback that serves one."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import ml_dtypes
import numpy as np
import pytest

from phi4.checkpoint import expected_shapes, optional_shapes, save_checkpoint, to_stored
from phi4.configs import PHI4_MULTIMODAL, Layout, Phi4Config, tiny_multimodal, write_config
from phi4.shapes import AnyArray

Tensors = dict[str, AnyArray]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="session")
def tiny() -> Phi4Config:
    """The tiny multimodal model, two adapters."""
    return tiny_multimodal()


@pytest.fixture(scope="session")
def tensors(tiny: Phi4Config) -> Tensors:
    """Random weights by our names, the unused vision tensors included; every third one is bfloat16."""
    rng = np.random.default_rng(7)
    shapes = expected_shapes(tiny) | optional_shapes(tiny)
    del shapes["decoder.lm_head.weight"]
    made: Tensors = {}
    for index, (name, shape) in enumerate(shapes.items()):
        values = rng.standard_normal(shape).astype(np.float32)
        made[name] = values.astype(ml_dtypes.bfloat16) if index % 3 == 0 else values
    return made


@pytest.fixture
def saved(tmp_path: Path, tiny: Phi4Config, tensors: Tensors) -> Callable[..., Path]:
    """Writes the tiny model into a directory in a layout; `shards` = how large a shard may grow."""

    def save(layout: Layout, shard_bytes: int = 1 << 30, name: str = "model") -> Path:
        save_checkpoint(tmp_path / name, tiny, tensors, layout, shard_bytes)
        return tmp_path / name

    return save


@pytest.fixture
def full_size(tmp_path: Path) -> Path:
    """The released multimodal model in three sparse shards: true headers, no data on disk."""
    shapes = expected_shapes(PHI4_MULTIMODAL) | optional_shapes(PHI4_MULTIMODAL)
    del shapes["decoder.lm_head.weight"]
    names = list(shapes)
    weight_map = {}
    for number in range(3):
        file = f"model-0000{number + 1}-of-00003.safetensors"
        header, position = {}, 0
        for name in names[number::3]:
            size = 2
            for side in shapes[name]:
                size *= side
            stored = to_stored(name, "original")
            header[stored] = {
                "dtype": "BF16",
                "shape": shapes[name],
                "data_offsets": [position, position + size],
            }
            position += size
            weight_map[stored] = file
        encoded = json.dumps(header).encode()
        with (tmp_path / file).open("wb") as sparse:
            sparse.write(len(encoded).to_bytes(8, "little") + encoded)
            sparse.truncate(8 + len(encoded) + position)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (tmp_path / "config.json").write_text(json.dumps(write_config(PHI4_MULTIMODAL)))
    return tmp_path


class Hub:
    """The part of the hub's HTTP interface a snapshot download uses, for one repository `owner/tiny`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.fetched, self.sent_bytes = folder, set[str](), 0
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, body: bool) -> None:
                path = unquote(urlsplit(self.path).path)
                status, headers, content = hub.respond(path, body, self.headers.get("Range"))
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", headers.get("X-Size", str(len(content))))
                self.end_headers()
                if body:
                    self.wfile.write(content)
                    hub.sent_bytes += len(content)

            def log_message(self, *_: object) -> None:
                """Keep the test's output clean."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def files(self) -> list[str]:
        return sorted(p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file())

    def respond(self, path: str, body: bool, asked: str | None) -> tuple[int, dict[str, str], bytes]:
        if path.startswith("/api/models/owner/tiny/revision/") or path == "/api/models/owner/tiny":
            siblings = [{"rfilename": name} for name in self.files()]
            told = {"id": "owner/tiny", "sha": COMMIT, "siblings": siblings}
            return 200, {"Content-Type": "application/json"}, json.dumps(told).encode()
        if path.startswith("/api/models/owner/tiny/tree/"):
            rows = [
                {"type": "file", "path": n, "size": (self.folder / n).stat().st_size, "oid": "0" * 40}
                for n in self.files()
            ]
            return 200, {"Content-Type": "application/json"}, json.dumps(rows).encode()
        prefix = f"/owner/tiny/resolve/{COMMIT}/"
        if path.startswith(prefix) and (name := path.removeprefix(prefix)) in self.files():
            return self.file(name, body, asked)
        missing = path.startswith(prefix)
        return 404, {"X-Error-Code": "EntryNotFound" if missing else "RepoNotFound"}, b"{}"

    def file(self, name: str, body: bool, asked: str | None) -> tuple[int, dict[str, str], bytes]:
        size = (self.folder / name).stat().st_size
        tag = hashlib.sha256(f"{name} {size}".encode()).hexdigest()
        headers = {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT}
        if not body:
            return 200, headers | {"X-Size": str(size)}, b""
        with (self.folder / name).open("rb") as file:
            if asked is None:
                self.fetched.add(name)
                return 200, headers, file.read()
            first, last = (int(number) for number in asked.removeprefix("bytes=").split("-"))
            file.seek(first)
            content = file.read(last + 1 - first)
        return 206, headers | {"Content-Range": f"bytes {first}-{first + len(content) - 1}/{size}"}, content


@pytest.fixture
def serve() -> Iterator[Callable[[Path], Hub]]:
    """Serves a folder as `owner/tiny`: `serve(folder)`."""
    running: list[tuple[Hub, threading.Thread]] = []

    def start(folder: Path) -> Hub:
        hub = Hub(folder)
        thread = threading.Thread(target=hub.server.serve_forever, daemon=True)
        thread.start()
        running.append((hub, thread))
        return hub

    yield start
    for hub, thread in running:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()


@pytest.fixture
def elsewhere(repository: Path, tmp_path: Path) -> Callable[..., str]:
    """Runs code in another process with a hub home of its own: huggingface_hub reads its variables once."""

    def run(code: str, *args: str, **variables: str) -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        environment |= {"PYTHONPATH": str(repository / "src"), "HF_HOME": str(tmp_path / "home")}
        environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        environment |= {"HF_HUB_DISABLE_XET": "1", **variables}
        done = subprocess.run(
            [sys.executable, "-c", code, *args], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    return run
