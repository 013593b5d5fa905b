"""The chat template shipped with a model, compared with what phi4 renders.

phi4 renders chats itself and never runs a template of a checkpoint (`phi4.processing.chat_template`). So
nothing is rendered here either: the digest of the shipped text is looked up among the templates known to
give what phi4 renders. Any other may be harmless or not, and is shown as a warning with the control tokens
it speaks of. A package carries phi4's own template for other programs, which says nothing about the model:
what counts there is the digest it notes of the one its model came with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from phi4.configs.jsonfile import read_json_object
from phi4.diagnose.case import Case, need
from phi4.diagnose.finding import Finding
from phi4.onnx.package.description import DESCRIPTION_NAME
from phi4.processing.chat_template import CHAT_TEMPLATE, shipped_templates, template_digest
from phi4.processing.tokenizer import Phi4Tokenizer

FIELD = "template"
"""Where a package notes the digest that `chat_template.source_template` gives; null = the model had none."""
KNOWN = {
    "4e8ca7e0d099f48691fe392e6bd1090435d00bca644c80d5cfe7a57101c20d62": "the released template",
    "8bbc9b9dcef5d200bee540388b71d95171a337149e378d00676f0b2ee887ebf0": "the released template, cut short",
    "f9c4afa95fccd3a4a0eecb52f3ec6ccecb465f6092f059396c1869c788a24e32": "the template phi4 gives exports",
    "38915b3f2e541ed6dd08ff010161e1e39f393c8ff1d89c813330cef8c9ff172a": "the HF-native template",
}
"""Digest of the reduced text -> what it is. White space beside a control token changes no ids: the token
swallows it. The HF-native one closes a system turn with tools twice, which phi4 does not.

Source: `tokenizer_config.json` of the released models, and of their HF-native revision.
"""
_CONTROL = re.compile(r"<\|[^|<>\s]{1,40}\|>")


@dataclass(frozen=True)
class _Shipped:
    """A template of the model: where it stands, in words, its digest, and its text where that is at hand."""

    where: str
    digest: str
    text: str | None = None


def check_template(case: Case) -> Finding | None:
    """Whether the model's own template is one that gives the prompts phi4 makes."""
    tokenizer = need(case.tokenizer, "tokenizer")
    path, folder = need(case.path, "model"), need(case.folder, "model")
    found = next(_templates_of(path, folder), None)
    if found is not None:
        return _judged(found, tokenizer)
    if path == folder and _is_package(path) and FIELD not in read_json_object(path / DESCRIPTION_NAME):
        return Finding(
            "warning",
            f"{DESCRIPTION_NAME} does not say which template the exported model came with",
            "export the model again with this phi4",
        )
    return Finding("ok", "the model ships none; phi4 renders the released format")


def _templates_of(path: Path, folder: Path) -> Iterator[_Shipped]:
    """Templates that say something about the model, the one that counts first."""
    packaged, ours = _is_package(path), template_digest(CHAT_TEMPLATE)
    for file, text in shipped_templates(path):
        digest = template_digest(text)
        if not (packaged and digest == ours):
            yield _Shipped(f"{file.name} holds", digest, text)
    noted = read_json_object(path / DESCRIPTION_NAME).get(FIELD) if packaged else None
    if isinstance(noted, str):
        yield _Shipped("the exported model came with", noted)
    if folder != path:
        for file, text in shipped_templates(folder):
            yield _Shipped(f"{file.name} holds", template_digest(text), text)


def _is_package(path: Path) -> bool:
    return (path / DESCRIPTION_NAME).is_file()


def _judged(found: _Shipped, tokenizer: Phi4Tokenizer) -> Finding:
    known = KNOWN.get(found.digest)
    if known is not None:
        return Finding("ok", f"{found.where} {known}; phi4 makes the same prompts")
    told = f"{found.where} a template phi4 does not know"
    if found.text is not None:
        literals = {token.content for token in tokenizer.added_tokens}
        strange = sorted(set(_CONTROL.findall(found.text)) - literals)
        lacking = f", with tokens this tokenizer lacks: {', '.join(strange[:8])}" if strange else ""
        told += f" ({len(found.text)} characters{lacking})"
    advice = "phi4 makes prompts in the released format; a model trained with another will answer badly"
    return Finding("warning", told, advice)
