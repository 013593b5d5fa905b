"""OpenAI's own JavaScript package against the real server: `make serve-js` installs it and runs this.

Elsewhere: `npm install --prefix DIR openai`, then `OPENAI_JS=DIR` beside `pytest` on this file.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import phi4

FOLDER = os.environ.get("OPENAI_JS")


@pytest.fixture(scope="module")
def model() -> phi4.Phi4:
    return phi4.load("nano")


@pytest.fixture(scope="module")
def found(server: Any, media: Path) -> dict[str, Any]:
    """What the script got; it asks everything in one run."""
    if FOLDER is None:
        pytest.skip("OPENAI_JS names no folder with the package; `make serve-js` does")
    package = Path(FOLDER).resolve() / "package.json"
    script = Path(__file__).with_name("openai_client.mjs")
    asked = (media / "speech-transcribe-1.wav", media / "read-text-1.png")
    done = subprocess.run(
        ["node", str(script), server.url, *map(str, asked)],
        env={**os.environ, "OPENAI_FROM": str(package)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_chats_whole_and_streamed_say_what_the_model_says(
    found: dict[str, Any], model: phi4.Phi4, media: Path
) -> None:
    chats = found["chats"]
    assert chats["whole"] == chats["streamed"] == found["left"] == model.chat("Who are you?").text
    assert chats["usages"][0] == chats["usages"][1] > 0
    question = [{"type": "text", "text": "What is on the sign?"}]
    question.append({"type": "image", "image": str(media / "read-text-1.png")})
    assert chats["seen"] == model.chat([{"role": "user", "content": question}]).text


def test_tool_calls_come_whole_in_pieces_and_through_the_packages_own_helper(found: dict[str, Any]) -> None:
    tools = found["tools"]
    name, arguments, reason = tools["call"]
    assert (name, reason) == ("set_light", "tool_calls") and set(json.loads(arguments)) == {"room", "on"}
    assert tools["streamed"] == tools["helper"] == tools["call"] and tools["pieces"] > 1
    assert tools["after"] == "string"


def test_events_of_responses_add_up_to_the_response(found: dict[str, Any], model: phi4.Phi4) -> None:
    told = found["responses"]
    assert told["whole"] == told["streamed"] == told["helper"] == model.chat("Who are you?").text
    assert told["kinds"] == ["response.created", "response.completed"] and told["longer"]
    assert told["deltas"] == told["done"] == told["ended"] and json.loads(told["done"])["room"]


def test_a_file_of_the_package_is_heard_like_one_of_the_disk(
    found: dict[str, Any], model: phi4.Phi4, media: Path
) -> None:
    heard = found["recordings"]
    said = model.transcribe(media / "speech-transcribe-1.wav").text.strip()
    assert heard["file"] == heard["deltas"] == heard["done"] == said
    assert heard["read"] and heard["segments"] >= 1


def test_errors_are_the_packages_own_classes_and_models_are_listed(found: dict[str, Any]) -> None:
    assert found["refused"] == ["NotFoundError", 404, "model_not_found", True]
    assert found["models"] == ["nano"]
