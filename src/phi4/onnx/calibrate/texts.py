"""Texts and conversations of a file as prompts to calibrate with.

    inputs = read_texts(Path("dialogues.jsonl"), processor)

One JSON object a line: {"text": "..."} or {"messages": [...]}, messages as `phi4.processing` takes them. A
conversation that ends with the assistant is read as it would be learnt from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from phi4.configs.jsonfile import parse_json_object
from phi4.errors import InvalidRequest, Phi4Error
from phi4.processing.processor import Processor
from phi4.types import ModelInputs

MAX_ROWS = 4096
"""More rows tell nothing new and take hours at full size."""
MAX_TEXT_TOKENS = 2048
"""Plain texts are cut there; conversations are taken whole."""


def read_texts(path: Path, processor: Processor) -> list[ModelInputs]:
    """Read a file.

    Args:
        path: The file, UTF-8; empty lines are passed over.
        processor: Of the model.

    Raises:
        InvalidRequest: The file is missing, has no rows or too many, or a line is neither of the two.
        InvalidArtifact: A line is not JSON.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as problem:
        raise InvalidRequest(f"{path}: cannot be read ({problem.strerror or problem})") from None
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not 0 < len(numbered) <= MAX_ROWS:
        raise InvalidRequest(f"{path}: has {len(numbered)} rows to calibrate with, must have 1 to {MAX_ROWS}")
    return [_row(line, f"{path}, line {number}", processor) for number, line in numbered]


def text_row(text: str, processor: Processor) -> ModelInputs:
    """A plain text as a row, ended by the end-of-text token, or cut after `MAX_TEXT_TOKENS`."""
    tokenizer = processor.tokenizer
    ids = [*tokenizer.encode_text(text), tokenizer.tokens.endoftext]
    return ModelInputs(np.array(ids[:MAX_TEXT_TOKENS], np.int64))


def _row(line: bytes, where: str, processor: Processor) -> ModelInputs:
    found: dict[str, Any] = parse_json_object(line, where)
    text, messages = found.get("text"), found.get("messages")
    if isinstance(text, str):
        return text_row(text, processor)
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise InvalidRequest(f'{where}: must have "text", a string, or "messages", a list of objects')
    tools = found.get("tools") or ()
    try:
        if messages[-1].get("role") == "assistant":
            return processor.prepare_training(messages, tools)
        return processor.prepare(messages, tools)
    except Phi4Error as problem:
        raise InvalidRequest(f"{where}: {problem}") from problem
