"""What `phi4 demo` shows: the shipped examples, and one picture nobody has seen before.

`examples/media/manifest.json` lists the examples: `{"items": [...]}`, each item an object with

    task        generator of `phi4.data` it was made by; decides how the answer is judged
    system      instructions; may be left out
    prompt      text of the user's message, may be empty when the question is spoken
    images      file names beside the manifest, in order; may be left out
    audio       the same for recordings
    tools       functions offered, in JSON-schema form; may be left out
    answers     accepted answers, the first one shown
    tool_calls  expected calls, objects with name and arguments; may be left out
    spoken      words of the recording, for people; may be left out

Answers in the manifest are only compared with; the model never sees them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from phi4.data.render import fresh_picture
from phi4.data.world.words import CONTENT_WORDS
from phi4.errors import InvalidArtifact
from phi4.evals.samples import Sample
from phi4.evals.scorers import (
    Expected,
    Outcome,
    Scorer,
    character_error_rate,
    exact_answer,
    exact_sum,
    exact_tool_calls,
    word_error_rate,
)
from phi4.processing.tools import normalise_tools
from phi4.types import AudioPart, Completion, ImagePart, Message, Part, TextPart, ToolCall

MANIFEST = "manifest.json"
QUESTION = "What does it say?"


@dataclass(frozen=True)
class Kind:
    """How examples of one generator are introduced and judged."""

    title: str
    scorer: Scorer
    unit: str = ""


KINDS = {
    "read_text": Kind("reads a line of text from a picture", character_error_rate, "characters"),
    "speech_transcribe": Kind("writes down a spoken sentence", word_error_rate, "words"),
    "speech_qa": Kind("answers a spoken question", exact_answer),
    "chart_qa": Kind("answers a question about a chart", exact_answer),
    "spoken_chart_qa": Kind("answers a spoken question about a chart", exact_answer),
    "table_qa": Kind("answers a question about a table", exact_answer),
    "number_qa": Kind("answers a question about numbers in words", exact_answer),
    "command": Kind("turns a household command into a tool call", exact_tool_calls),
    "spoken_command": Kind("turns a spoken household command into a tool call", exact_tool_calls),
    "sums": Kind("works out a sum, step by step", exact_sum),
}


@dataclass(frozen=True)
class Piece:
    """One thing to show.

    Attributes:
        kind: What the model does here, and how it is judged.
        sample: Prompt and right answer.
        files: Media of the prompt, to show where they are.
        spoken: Words of the recording, for people; the model gets the sound alone.
    """

    kind: Kind
    sample: Sample
    files: tuple[Path, ...]
    spoken: str = ""

    def judge(self, completion: Completion) -> Outcome:
        """Errors in an answer; right = none at all."""
        return self.kind.scorer(completion, self.sample.expected)

    def verdict(self, outcome: Outcome) -> str:
        """An outcome in words."""
        if outcome.right:
            return "right"
        return (
            f"wrong ({outcome.errors} errors in {outcome.length} {self.kind.unit})"
            if self.kind.unit
            else "wrong"
        )


def find_examples(start: Path) -> Path | None:
    """The nearest `examples/media` with a manifest, in `start` or a folder above it."""
    for folder in (start, *start.parents):
        found = folder / "examples" / "media"
        if (found / MANIFEST).is_file():
            return found
    return None


def read_examples(folder: Path) -> list[Piece]:
    """The pieces a manifest lists, in its order.

    Raises:
        InvalidArtifact: The manifest is missing, broken, or names a file outside its folder.
    """
    path = folder / MANIFEST
    try:
        items = json.loads(path.read_text(encoding="utf-8"))["items"]
        return [_piece(folder, item, number) for number, item in enumerate(items)]
    except OSError as error:
        raise InvalidArtifact(f"{path}: {error.strerror}; `make examples` in a checkout writes it") from None
    except (ValueError, KeyError, TypeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise InvalidArtifact(
            f"{path} is not a list of examples ({what}); `make examples` writes it"
        ) from None


def fresh_piece(folder: Path, rng: np.random.Generator | None = None) -> Piece:
    """A picture with random words and a random number, drawn now and written to `folder`."""
    pixels, text = fresh_picture(rng or np.random.default_rng(), CONTENT_WORDS)
    path = folder / "fresh.png"
    Image.fromarray(pixels).save(path)
    message = Message("user", (ImagePart(path), TextPart(QUESTION)))
    sample = Sample("fresh", (message,), Expected(text))
    kind = Kind("reads a picture drawn just now: random words and number", character_error_rate, "characters")
    return Piece(kind, sample, (path,))


def _piece(folder: Path, item: dict[str, Any], number: int) -> Piece:
    kind = KINDS[item["task"]]
    images = [_beside(folder, name) for name in item.get("images", ())]
    audio = [_beside(folder, name) for name in item.get("audio", ())]
    parts: list[Part] = [*map(ImagePart, images), *map(AudioPart, audio)]
    if item["prompt"]:
        parts.append(TextPart(item["prompt"]))
    answers = tuple(item["answers"])
    calls = tuple(ToolCall(call["name"], call["arguments"]) for call in item.get("tool_calls", ()))
    expected = Expected("" if calls else answers[0], calls, answers[1:])
    tools = normalise_tools(item.get("tools", ()))
    messages = (Message("system", (TextPart(item["system"]),)),) if item.get("system") else ()
    sample = Sample(f"example/{number}", (*messages, Message("user", tuple(parts))), expected, tools)
    return Piece(kind, sample, (*images, *audio), item.get("spoken", ""))


def _beside(folder: Path, name: str) -> Path:
    path = folder / name
    if path.parent != folder:
        raise ValueError(f"{name!r} is not a file beside the manifest")
    return path
