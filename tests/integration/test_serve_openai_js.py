"""OpenAI's own JavaScript package against the real server, where node and the package are there.

`npm install --prefix DIR openai`, then `OPENAI_JS=DIR make test PYTEST_ARGS='-k javascript'`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import phi4

INSTALLED = Path(os.environ.get("OPENAI_JS", "nowhere")) / "node_modules" / "openai"


@pytest.mark.skipif(
    shutil.which("node") is None or not INSTALLED.is_dir(), reason="node or its package openai is not there"
)
def test_javascript_client_gets_what_the_model_says(server: Any, media: Path) -> None:
    script = Path(__file__).with_name("openai_client.mjs")
    recording = media / "speech-transcribe-1.wav"
    variables = {**os.environ, "OPENAI_FROM": str(INSTALLED.parents[1].resolve() / "package.json")}
    done = subprocess.run(
        ["node", str(script), server.url, str(recording)],
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    model = phi4.load("nano")
    said = model.chat("Who are you?").text
    assert (found["whole"], found["streamed"], found["response"]) == (said, said, said)
    assert found["heard"] == model.transcribe(recording).text.strip()
    assert (found["kinds"][0], found["kinds"][-1]) == ("response.created", "response.completed")
    assert (found["refused"], found["models"]) == ("404 model_not_found", ["nano"])
