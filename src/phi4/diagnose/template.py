"""The chat template shipped with a model, compared with what phi4 renders.

phi4 renders chats itself and never runs a template of a checkpoint: that is a program of a stranger, and
without limits. So nothing is rendered here either: the shipped text is reduced (white space, quotes and
trim marks away) and its digest looked up among the templates known to give what phi4 renders. Any other
may be harmless or not, and is shown as a warning with the control tokens it speaks of.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phi4.configs.jsonfile import read_json_object
from phi4.diagnose.case import Case, need
from phi4.diagnose.finding import Finding
from phi4.errors import InvalidArtifact

SETTINGS = ("tokenizer_config.json", "chat_template.json")
PLAIN = "chat_template.jinja"
MAX_TEMPLATE_BYTES = 1 << 20
KNOWN = {
    "4e8ca7e0d099f48691fe392e6bd1090435d00bca644c80d5cfe7a57101c20d62": "the released template",
    "8bbc9b9dcef5d200bee540388b71d95171a337149e378d00676f0b2ee887ebf0": "the released template, cut short",
    "f9c4afa95fccd3a4a0eecb52f3ec6ccecb465f6092f059396c1869c788a24e32": "the template phi4 gives exports",
    "38915b3f2e541ed6dd08ff010161e1e39f393c8ff1d89c813330cef8c9ff172a": "the HF-native template",
}
"""Digest of the reduced text -> what it is. White space beside a control token changes no ids: the token
swallows it. The HF-native one closes a system turn with tools twice, which phi4 does not.

Source: spec 02, "Chat template".
"""
_TRIM = re.compile(r"(?<=\{[{%])[-+]|[-+](?=[%}]\})")
_CONTROL = re.compile(r"<\|[^|<>\s]{1,40}\|>")


def check_template(case: Case) -> Finding | None:
    """Whether the model's own template is one that gives the prompts phi4 makes."""
    tokenizer = need(case.tokenizer, "tokenizer")
    folders = dict.fromkeys((need(case.path, "model"), need(case.folder, "model")))
    found = next((item for folder in folders for item in shipped_templates(folder)), None)
    if found is None:
        return Finding("ok", "the model ships none; phi4 renders the released format")
    file, text = found
    known = KNOWN.get(digest(text))
    if known is not None:
        return Finding("ok", f"{file.name} holds {known}; phi4 makes the same prompts")
    literals = {token.content for token in tokenizer.added_tokens}
    strange = sorted(set(_CONTROL.findall(text)) - literals)
    told = f"{file.name} holds a template phi4 does not know ({len(text)} characters"
    told += f", with tokens this tokenizer lacks: {', '.join(strange[:8])})" if strange else ")"
    advice = "phi4 makes prompts in the released format; a model trained with another will answer badly"
    return Finding("warning", told, advice)


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


def _template_in(value: Any) -> str | None:
    """One template, or the default one of several with names."""
    if isinstance(value, list):
        named = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
        value = named.get("default", next(iter(named.values()), None))
    return value if isinstance(value, str) else None


def digest(text: str) -> str:
    """SHA-256 of a template's text without white space and trim marks, with one kind of quotes."""
    reduced = "".join(_TRIM.sub("", text).split()).replace('"', "'")
    return hashlib.sha256(reduced.encode("utf-8", errors="replace")).hexdigest()
