"""Examples are read from their manifest, the fresh picture is new every time, and both are judged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phi4.data import TASKS as GENERATORS
from phi4.errors import InvalidArtifact
from phi4.evals.showcase import KINDS, MANIFEST, find_examples, fresh_piece, read_examples
from phi4.types import AudioPart, Completion, ImagePart, TextPart, Timing, ToolCall, Usage

ITEMS = [
    {"task": "read_text", "prompt": "Read this.", "images": ["sign.png"], "answers": ["Gate 4", "GATE 4"]},
    {
        "task": "spoken_chart_qa",
        "prompt": "",
        "images": ["chart.png"],
        "audio": ["question.wav"],
        "answers": ["7"],
    },
    {
        "task": "command",
        "system": "You control a house.",
        "prompt": "lights on",
        "tools": [{"name": "lights", "parameters": {"on": {"type": "bool"}}}],
        "answers": ["[...]"],
        "tool_calls": [{"name": "lights", "arguments": {"on": True}}],
    },
]


def write(folder: Path, items: object) -> Path:
    media = folder / "examples" / "media"
    media.mkdir(parents=True)
    (media / MANIFEST).write_text(json.dumps({"items": items}))
    return media


def said(text: str, *calls: ToolCall) -> Completion:
    return Completion(text, (), calls, "stop", Usage(1, 1), Timing())


def test_items_become_prompts_with_media_before_text(tmp_path: Path) -> None:
    media = write(tmp_path, ITEMS)
    sign, chart, command = read_examples(media)
    assert sign.sample.messages[0].parts == (ImagePart(media / "sign.png"), TextPart("Read this."))
    assert chart.sample.messages[0].parts == (
        ImagePart(media / "chart.png"),
        AudioPart(media / "question.wav"),
    )
    assert [m.role for m in command.sample.messages] == ["system", "user"]
    assert command.sample.tools[0].name == "lights"


def test_pieces_are_judged_by_their_task(tmp_path: Path) -> None:
    sign, chart, command = read_examples(write(tmp_path, ITEMS))
    assert sign.judge(said("GATE 4")).right and not sign.judge(said("Gate 5")).right
    assert chart.judge(said("7.")).right and not chart.judge(said("8")).right
    assert command.judge(said("", ToolCall("lights", {"on": True}))).right
    assert not command.judge(said("[...]")).right


def test_every_generator_with_a_scored_answer_can_be_an_example() -> None:
    assert set(KINDS) == set(GENERATORS) - {"text", "chat", "page"}


def test_fresh_picture_differs_from_run_to_run(tmp_path: Path) -> None:
    pieces = [fresh_piece(tmp_path) for _ in range(4)]
    assert len({piece.sample.expected.text for piece in pieces}) > 1
    assert any(character.isdigit() for character in pieces[0].sample.expected.text)
    with Image.open(pieces[0].files[0]) as picture:
        assert np.asarray(picture).std() > 1


def test_fresh_picture_follows_its_random_stream(tmp_path: Path) -> None:
    first = fresh_piece(tmp_path, np.random.default_rng(3)).sample.expected
    assert fresh_piece(tmp_path, np.random.default_rng(3)).sample.expected == first


def test_examples_are_found_from_below(tmp_path: Path) -> None:
    media = write(tmp_path, ITEMS)
    below = tmp_path / "src" / "deep"
    below.mkdir(parents=True)
    assert find_examples(below) == media
    assert find_examples(tmp_path) == media


@pytest.mark.parametrize(
    "items",
    [
        [{"task": "poem", "prompt": "x", "answers": ["y"]}],
        [{"task": "sums", "prompt": "x"}],
        [{"task": "read_text", "prompt": "x", "images": ["../secret.png"], "answers": ["y"]}],
        7,
    ],
)
def test_bad_manifest_is_refused_with_what_to_do(tmp_path: Path, items: object) -> None:
    with pytest.raises(InvalidArtifact, match="make examples"):
        read_examples(write(tmp_path, items))


def test_missing_manifest_says_what_writes_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidArtifact, match="make examples"):
        read_examples(tmp_path)
