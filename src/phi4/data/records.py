"""What the small world is made of: one `Record` is one prompt with the answer that is right.

A record is a pure function of (task, split, seed, index). It holds no file names: pictures and
recordings sit in it as arrays, so that a trainer can start at any index, in any process, and see the
same thing. Turning a record into a row for the model is `phi4.processing`'s work, not done here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from phi4.errors import InvalidRequest
from phi4.types import Message, Part, TextPart, ToolSpec

Split = Literal["train", "test", "examples"]
SPLITS: tuple[Split, ...] = ("train", "test", "examples")


@dataclass(frozen=True)
class Record:
    """One prompt of the small world and its answer.

    Attributes:
        task: Name of the generator, one of `phi4.data.TASKS`.
        split: "train", "test" or "examples"; docs/data.md says what of the last two the first never holds.
        index: Position in the endless sequence of the task, from 0.
        messages: The prompt; empty for a plain document (task "text").
        reply: The last assistant turn, text or tool calls; it is learnt, and so is any in `messages`.
        answers: Accepted answers as text, the one in `reply` first.
        tools: Functions offered in the prompt.
        metadata: How it was made: voice, font, template, noise, numbers. Plain JSON values.
    """

    task: str
    split: Split
    index: int
    messages: tuple[Message, ...]
    reply: Message
    answers: tuple[str, ...]
    tools: tuple[ToolSpec, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def conversation(self) -> tuple[Message, ...]:
        """The prompt with its answer: what a training row is made from."""
        return (*self.messages, self.reply)

    @property
    def document(self) -> str:
        """The text of a plain document; the answer's text for every other task."""
        return "".join(part.text for part in self.reply.parts if isinstance(part, TextPart))

    @property
    def media(self) -> tuple[Part, ...]:
        """Pictures and recordings of the prompt, in order."""
        return tuple(p for m in self.messages for p in m.parts if not isinstance(p, TextPart))


def stream(*key: str | int) -> np.random.Generator:
    """Returns the random stream that belongs to a key; equal keys give equal streams everywhere.

    Args:
        key: Names and numbers, for example task, split, seed, index.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def check_split(split: str) -> Split:
    """Returns `split` when it is one of ours.

    Raises:
        InvalidRequest: It is not; the message lists the valid ones.
    """
    for known in SPLITS:
        if split == known:
            return known
    raise InvalidRequest(f"unknown split {split!r}; valid are {', '.join(SPLITS)}")


def listed(names: str) -> tuple[str, ...]:
    """Returns the names written in a string, separated by white space."""
    return tuple(names.split())


def user(*parts: Part | str) -> Message:
    """Returns a user turn; strings become text parts."""
    return Message("user", tuple(TextPart(p) if isinstance(p, str) else p for p in parts))


def assistant(text: str) -> Message:
    """Returns an assistant turn of plain text."""
    return Message("assistant", (TextPart(text),))
