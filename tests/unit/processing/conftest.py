"""A small tokenizer trained on a few sentences, and what it costs to load a medium."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.processing.tokenizer_build import build_tokenizer

TEXTS = [
    "The quick brown fox jumps over the lazy dog. It's a test, don't worry!",
    "Turn on the kitchen light and set the volume to 42, please.",
    '[{"name": "set_light", "arguments": {"room": "kitchen", "on": true}}]',
    "<|user|><|end|> spelt out, as a hostile text may do <|tool_call|>",
    "Grüße aus Köln, naïve façade, 你好世界, привет мир 😀",
] * 4


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a `tokenizer.json` of 600 entries, names as in the original layout."""
    directory = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(TEXTS, 600, directory)
    return directory


@pytest.fixture(scope="session")
def tokenizer(tokenizer_dir: Path) -> Phi4Tokenizer:
    return Phi4Tokenizer.load(tokenizer_dir)


@pytest.fixture(scope="session")
def native(tokenizer_dir: Path) -> Tokenizer:
    """The same file through the library alone: parses control tokens out of any string."""
    return Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))


CHILD = """
import json, sys, time
from pathlib import Path
from phi4.errors import InvalidMedia
from phi4.processing.audio import load_audio
from phi4.processing.images import load_image
from phi4.testing.media import friendly_audio, friendly_images

def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))

load, friendly = (load_image, friendly_images) if sys.argv[1] == "image" else (load_audio, friendly_audio)
for content in friendly().values():
    load(content)  # what a decoder imports and sets up once is not to count
for path in sorted(Path(sys.argv[2]).iterdir()):
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, begin, message = memory("VmRSS"), time.process_time(), None
    try:
        load(path)
    except InvalidMedia as error:
        message = str(error)
    cpu_s = time.process_time() - begin
    print(json.dumps([path.name, message, cpu_s, memory("VmHWM") - before]))
"""


@dataclass(frozen=True)
class Loading:
    """What loading one file came to: the refusal (None = it was loaded), and its cost."""

    message: str | None
    cpu_s: float
    peak_bytes: int


Measure = Callable[[str, Mapping[str, bytes]], dict[str, Loading]]


@pytest.fixture(scope="session")
def measure_loading(tmp_path_factory: pytest.TempPathFactory) -> Measure:
    """Loads files ("image" or "audio", by name) one by one in a process of its own.

    The peak memory of the test process itself says nothing: earlier tests have already raised it.
    """
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peak memory is read from /proc")

    def measure(kind: str, files: Mapping[str, bytes]) -> dict[str, Loading]:
        folder = tmp_path_factory.mktemp(kind)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        # The C library gives freed memory back at once, and does not serve the next file from it unseen.
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
        command = [sys.executable, "-c", CHILD, kind, str(folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        shutil.rmtree(folder)  # pytest keeps the folders of its last runs
        assert done.returncode == 0, done.stderr
        rows = map(json.loads, done.stdout.splitlines())
        return {name: Loading(*found) for name, *found in rows}

    return measure
