"""Schemathesis on the server's own OpenAPI document: what fits it and what does not, through every operation.

Whatever is sent, the answer is one the document names, in a form it names, and never a fault; what does not
fit the document is refused. That everything that fits is taken is not asked: a document cannot say that a
picture has to be one, or that an answer has to fit behind its prompt.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("schemathesis") is None, reason="schemathesis is not installed"
)
CANARY = {"messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 8}


@pytest.fixture(scope="module")
def running(another_server: Any) -> Any:
    """A server whose answers are short, since thousands are asked for."""
    return another_server("--max-new-tokens", "16")


def attack(running: Any, folder: Path, phases: str, examples: int, at_least: int) -> None:
    """Generate requests of these phases and hold the answers against the document."""

    def canary() -> Any:
        return httpx.post(f"{running.url}/v1/chat/completions", json=CANARY, timeout=60).json()["choices"]

    before = canary()
    options = ["--phases", phases, "--max-examples", str(examples), "--seed", "7", "--request-timeout", "60"]
    options += [
        "--exclude-checks",
        "positive_data_acceptance",
        "--suppress-health-check",
        "all",
        "--no-color",
    ]
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{running.url}/openapi.json", *options]
    variables = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-1000:]
    (sent,) = re.findall(r"(\d+) generated", done.stdout)
    assert int(sent) >= at_least, done.stdout[-2000:]
    assert canary() == before
    assert httpx.get(f"{running.url}/health/ready").json()["restarts"] == 0


def test_answers_are_as_the_document_says(running: Any, tmp_path: Path) -> None:
    attack(running, tmp_path, "fuzzing", 12, 100)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thousands_of_answers_are_as_the_document_says(running: Any, tmp_path: Path) -> None:
    attack(running, tmp_path, "examples,coverage,fuzzing,stateful", 300, 3000)
