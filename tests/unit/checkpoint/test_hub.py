"""Names become directories: built in, on disk, from a hub on loopback, from the cache offline."""

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

import pytest

from phi4.checkpoint import open_checkpoint, resolve_model
from phi4.errors import InvalidArtifact, ModelNotFound

Saved = Callable[..., Path]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """The part of the hub's HTTP interface a snapshot download uses, for one repository `owner/tiny`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.fetched = folder, set[str]()
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, body: bool) -> None:
                status, headers, content = hub.respond(unquote(urlsplit(self.path).path), body)
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if body:
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Keep the test's output clean."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def files(self) -> list[str]:
        return sorted(p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file())

    def respond(self, path: str, body: bool) -> tuple[int, dict[str, str], bytes]:
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
            content = (self.folder / name).read_bytes()
            if body:
                self.fetched.add(name)
            tag = hashlib.sha256(content).hexdigest()
            return 200, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT}, content
        return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"


@pytest.fixture
def hub(saved: Saved) -> Iterator[Hub]:
    folder = saved("original", 50_000, "remote")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("not needed")
    (folder / "modeling.py").write_text("raise SystemExit")
    hub = Hub(folder)
    thread = threading.Thread(target=hub.server.serve_forever, daemon=True)
    thread.start()
    yield hub
    hub.server.shutdown()
    hub.server.server_close()
    thread.join()


def resolve_elsewhere(repository: Path, home: Path, name: str, parts: str, **variables: str) -> list[str]:
    """Resolve in a process of its own: huggingface_hub reads its variables once, at import."""
    code = (
        "import sys\nfrom phi4.checkpoint import resolve_model\nfrom phi4.errors import ModelNotFound\n"
        "parts = sys.argv[2].split(',') if sys.argv[2] else None\n"
        "try:\n    print('FOUND', resolve_model(sys.argv[1], parts))\n"
        "except ModelNotFound as problem:\n    print('REFUSED', problem)\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"PYTHONPATH": str(repository / "src"), "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **variables}
    done = subprocess.run(
        [sys.executable, "-c", code, name, parts], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip().split(" ", 1)


def test_only_the_files_of_the_asked_modalities_are_fetched_and_found_again_offline(
    hub: Hub, repository: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    word, folder = resolve_elsewhere(repository, home, "owner/tiny", "text", HF_ENDPOINT=hub.url)
    assert word == "FOUND" and Path(folder).is_relative_to(home)
    shards = {name for name in hub.fetched if name.endswith(".safetensors")}
    assert {"config.json", "tokenizer.json", "model.safetensors.index.json"} == hub.fetched - shards
    assert 0 < len(shards) < len([name for name in hub.files() if name.endswith(".safetensors")])
    checkpoint = open_checkpoint(folder, ("text",))
    assert checkpoint.read("decoder.norm.weight").shape == (64,)

    offline = {"HF_HUB_OFFLINE": "1"}
    assert resolve_elsewhere(repository, home, "owner/tiny", "text", **offline) == ["FOUND", folder]
    word, told = resolve_elsewhere(repository, home, "owner/tiny", "", **offline)
    assert word == "REFUSED" and "not in the local cache" in told and "HF_HUB_OFFLINE" in told

    hub.fetched.clear()
    word, _ = resolve_elsewhere(repository, home, "owner/tiny@main", "", HF_ENDPOINT=hub.url)
    assert word == "FOUND"
    # What the text model brought is not fetched again.
    assert hub.fetched and not hub.fetched & (shards | {"config.json"})
    assert set(open_checkpoint(folder).config.modalities) == {"text", "vision", "speech"}


def test_failures_of_the_hub_say_what_to_do(hub: Hub, repository: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    word, told = resolve_elsewhere(repository, home, "owner/other", "", HF_ENDPOINT=hub.url)
    assert word == "REFUSED" and "no such repository" in told
    word, told = resolve_elsewhere(repository, home, "owner/tiny", "", HF_HUB_OFFLINE="1")
    assert word == "REFUSED" and "owner/tiny" in told and "cache" in told


def test_directory_is_taken_as_it_is(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved("mini")
    assert resolve_model(folder) == folder
    monkeypatch.chdir(folder.parent)
    assert resolve_model("./model") == Path("model")


def test_built_in_model_stands_in_the_package_or_says_how_to_make_it(
    saved: Saved, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("phi4.checkpoint.hub.resources.files", lambda _package: tmp_path)
    with pytest.raises(ModelNotFound, match="make nano"):
        resolve_model("nano")
    (tmp_path / "assets").mkdir()
    saved("original").rename(tmp_path / "assets" / "nano")
    assert open_checkpoint(resolve_model("nano")).layout == "original"


@pytest.mark.parametrize(
    "name", ["./nothing", "/nowhere/at/all", "nanoo", "a/b/c", "", "../x/y", "owner/name@"]
)
def test_name_of_nothing_is_refused_with_what_would_do(name: str) -> None:
    with pytest.raises(ModelNotFound, match=r"built-in models \['nano'\] or a hub id"):
        resolve_model(name, ("text",))


def test_file_is_refused_and_a_pickle_first_of_all(saved: Saved) -> None:
    folder = saved("mini")
    with pytest.raises(InvalidArtifact, match="give the directory"):
        resolve_model(folder / "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    with pytest.raises(InvalidArtifact, match="pickle checkpoint"):
        resolve_model(folder / "pytorch_model.bin")
