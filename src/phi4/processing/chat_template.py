"""Chat templates as Jinja text: the one exports carry, and those models ship. phi4 never runs any of them.

    CHAT_TEMPLATE              # for programs that render prompts from one: GGUF files, onnxruntime-genai
    source_template(folder)    # digest of what a model ships, to be noted where its files are left behind

phi4 renders with `phi4.processing.chat`. A template of a checkpoint is a program of a stranger and without
limits, so it is read and compared, reduced to what decides the prompt.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phi4.configs.jsonfile import read_json_object
from phi4.errors import InvalidArtifact

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + ('tool_response' if message['role'] == 'tool' else message['role']) + '|>' }}"
    "{% if message['content'] %}{{ message['content'] }}{% endif %}"
    "{% if message['role'] == 'system' and message['tools'] %}"
    "{{ '<|tool|>' + message['tools'] + '<|/tool|>' }}{% endif %}"
    "{{ '<|end|>' }}"
    "{% endfor %}"
    "{{ '<|assistant|>' if add_generation_prompt else '<|endoftext|>' }}"
)
"""What `phi4.processing.chat` renders, for text turns; tool definitions stand in the system turn as a string.

Source: `tokenizer_config.json` of the released models; the turn of a tool is spelt as the renderer spells it.
"""
SETTINGS = ("tokenizer_config.json", "chat_template.json")
PLAIN = "chat_template.jinja"
MAX_TEMPLATE_BYTES = 1 << 20
_TRIM = re.compile(r"(?<=\{[{%])[-+]|[-+](?=[%}]\})")


def shipped_templates(folder: Path) -> Iterator[tuple[Path, str]]:
    """Files of a model with a chat template, the one that counts first, and its text.

    Raises:
        InvalidArtifact: A file is broken or too large.
    """
    plain = folder / PLAIN
    if plain.is_file():
        size = plain.stat().st_size
        if size > MAX_TEMPLATE_BYTES:
            raise InvalidArtifact(
                f"{plain}: {size} bytes, a template has at most {MAX_TEMPLATE_BYTES}; do not use it"
            )
        yield plain, plain.read_text(encoding="utf-8", errors="replace")
    for name in SETTINGS:
        path = folder / name
        if path.is_file():
            text = _template_in(read_json_object(path).get("chat_template"))
            if text is not None:
                yield path, text


def source_template(folder: Path) -> str | None:
    """Digest of the template a model ships, the one that counts; None = it ships none.

    Raises:
        InvalidArtifact: A file is broken or too large.
    """
    return next((template_digest(text) for _, text in shipped_templates(folder)), None)


def template_digest(text: str) -> str:
    """SHA-256 of a template's text without white space and trim marks, with one kind of quotes."""
    reduced = "".join(_TRIM.sub("", text).split()).replace('"', "'")
    return hashlib.sha256(reduced.encode("utf-8", errors="replace")).hexdigest()


def _template_in(value: Any) -> str | None:
    """One template, or the default one of several with names."""
    if isinstance(value, list):
        named = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
        value = named.get("default", next(iter(named.values()), None))
    return value if isinstance(value, str) else None
