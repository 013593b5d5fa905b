"""Reading `tokenizer.json` with suspicion: what may come in, and what the native library gets to see.

The native library loads files whose ids lie outside the embedding table, renumbers added tokens
without a word, and ends the process's work with a panic on a catastrophic regular expression. So
the file is parsed and checked here first, and the library receives a rebuilt document holding the
byte-level BPE model and the pre-tokeniser only: no added tokens, normaliser or post-processor.
Control tokens are handled by this package, with the ids the file states.

Left out on purpose: tokenizers that are not byte-level BPE, and templates from tokenizer_config.json.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from phi4.configs.jsonfile import read_json_object
from phi4.errors import InvalidArtifact

MAX_VOCAB_SIZE = 1 << 20
MAX_ADDED_TOKENS = 4096
MAX_PATTERN_CHARS = 4096

# Strings every tokenizer must encode and give back unchanged; the runs find slow or lossy patterns early.
_PROBES = (
    "Hello, world! It's 12345 + 678.\r\n\n\t  end ",
    "\u00e9\u4f60\u597d \U0001f600 \u0645\u0631\u062d\u0628\u0627 \x00",
    "a" * 256 + "!",
    " " * 256 + "x",
    "\n" * 256 + "1" * 256 + "-" * 256,
    "aA" * 128 + "1",
)


@dataclass(frozen=True)
class AddedToken:
    """A control token of the file; the flags have the meaning of the `tokenizers` library.

    Attributes:
        id: Row in the embedding table.
        content: Literal spelling.
        special: True = dropped by `decode(..., skip_special=True)`.
        lstrip: White space directly before the literal belongs to the token.
        rstrip: White space directly after the literal belongs to the token.
    """

    id: int
    content: str
    special: bool
    lstrip: bool = False
    rstrip: bool = False


@dataclass(frozen=True)
class TokenizerParts:
    """A checked file: the native encoder for content, the ordinary vocabulary and the control tokens."""

    backend: Tokenizer
    vocab: Mapping[str, int]
    added: tuple[AddedToken, ...]


@contextmanager
def native_calls(what: str) -> Iterator[None]:
    """Turn any failure of the native library, panics included, into `InvalidArtifact`.

    A Rust panic arrives as `PanicException`, which is not an `Exception`, so it is known by name.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise InvalidArtifact(
                f"the tokenizer library failed {what}: {str(error)[:200]}; "
                "the tokenizer.json is broken or hostile, fetch it again from its source"
            ) from None
        raise


def read_tokenizer_file(path: Path, vocab_size: int | None = None) -> TokenizerParts:
    """Read and check one `tokenizer.json`.

    Args:
        path: The file.
        vocab_size: Rows of the model's embedding; no id may reach it. None = only a sanity limit.

    Raises:
        InvalidArtifact: The file is missing, too large, not JSON, not byte-level BPE, or has ids that
            are repeated, negative or beyond the vocabulary, or a pattern that can run away.
    """
    document = _read_document(path)
    model = _checked_model(document, path)
    limit = MAX_VOCAB_SIZE if vocab_size is None else vocab_size
    added = _added_tokens(document.get("added_tokens") or [], path)
    vocab = _ordinary_vocab(model, added)
    _check_ids(vocab, added, limit, path)
    backend = _native_backend(model, vocab, _checked_pre_tokenizer(document, path))
    _probe(backend, path)
    return TokenizerParts(backend, vocab, added)


def _refuse(
    path: Path, what: str, todo: str = "use the tokenizer.json released with the model"
) -> InvalidArtifact:
    return InvalidArtifact(f"tokenizer file {path}: {what}; {todo}")


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _read_document(path: Path) -> dict[str, Any]:
    if not os.path.exists(path):
        raise _refuse(path, "does not exist or cannot be reached", "give a directory with a tokenizer.json")
    return read_json_object(path)


def _checked_model(document: Mapping[str, Any], path: Path) -> dict[str, Any]:
    model = document.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        raise _refuse(path, "model is not a byte-level BPE")
    if not isinstance(model.get("vocab"), dict) or not isinstance(model.get("merges"), list):
        raise _refuse(path, "model.vocab or model.merges is missing")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(key):
            raise _refuse(path, f"model.{key} = {_shown(model[key])} is not supported, it must be empty")
    if document.get("normalizer") is not None:
        raise _refuse(path, "a normalizer would change the text, it must be null")
    return model


def _added_tokens(entries: Any, path: Path) -> tuple[AddedToken, ...]:
    if not isinstance(entries, list) or len(entries) > MAX_ADDED_TOKENS:
        raise _refuse(path, f"added_tokens must be a list of at most {MAX_ADDED_TOKENS}")
    return tuple(_added_token(entry, path) for entry in entries)


def _added_token(entry: Any, path: Path) -> AddedToken:
    if not isinstance(entry, dict):
        raise _refuse(path, f"added token {_shown(entry)} is not an object")
    content, token_id = entry.get("content"), entry.get("id")
    if (
        not isinstance(content, str)
        or not content
        or not isinstance(token_id, int)
        or isinstance(token_id, bool)
    ):
        raise _refuse(path, f"added token {_shown(entry)} needs a text `content` and a whole-number `id`")
    flags = {key: entry.get(key) is True for key in ("special", "lstrip", "rstrip")}
    return AddedToken(token_id, content, **flags)


def _ordinary_vocab(model: Mapping[str, Any], added: tuple[AddedToken, ...]) -> dict[str, int]:
    """The model's vocabulary without entries that spell a control token, which content must never reach."""
    controls = {token.content: token.id for token in added}
    for literal, token_id in controls.items():
        if model["vocab"].get(literal, token_id) != token_id:
            raise InvalidArtifact(
                f"tokenizer: added token {_shown(literal)} has id {token_id} but the vocabulary says "
                f"{_shown(model['vocab'][literal])}; use the tokenizer.json released with the model"
            )
    return {literal: token_id for literal, token_id in model["vocab"].items() if literal not in controls}


def _check_ids(vocab: Mapping[str, int], added: tuple[AddedToken, ...], limit: int, path: Path) -> None:
    seen: dict[int, str] = {}
    entries = [*vocab.items(), *((token.content, token.id) for token in added)]
    for literal, token_id in entries:
        if not isinstance(token_id, int) or isinstance(token_id, bool) or not 0 <= token_id < limit:
            todo = "check that config.json and tokenizer.json belong together"
            raise _refuse(
                path, f"{_shown(literal)} has id {_shown(token_id)}, valid are 0 to {limit - 1}", todo
            )
        if token_id in seen:
            raise _refuse(
                path, f"id {token_id} is used by both {_shown(seen[token_id])} and {_shown(literal)}"
            )
        seen[token_id] = literal
    if len({token.content for token in added}) != len(added):
        raise _refuse(path, "an added token appears twice")


def _checked_pre_tokenizer(document: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Accept `ByteLevel`, or a sequence of lossless `Split`s ending in `ByteLevel`."""
    pre = document.get("pre_tokenizer")
    steps = pre.get("pretokenizers") if isinstance(pre, dict) and pre.get("type") == "Sequence" else [pre]
    if (
        not isinstance(steps, list)
        or not all(isinstance(step, dict) for step in steps)
        or not 1 <= len(steps) <= 4
    ):
        raise _refuse(path, "pre_tokenizer must be ByteLevel, or Split steps and then ByteLevel")
    if steps[-1].get("type") != "ByteLevel" or steps[-1].get("add_prefix_space") is not False:
        raise _refuse(path, "pre_tokenizer must end in ByteLevel without prefix space")
    for step in steps[:-1]:
        lossless = (step.get("behavior"), step.get("invert")) in (("Isolated", False), ("Removed", True))
        pattern = step.get("pattern")
        regex = pattern.get("Regex") if isinstance(pattern, dict) else None
        if step.get("type") != "Split" or not lossless or not isinstance(regex, str):
            raise _refuse(
                path, f"pre_tokenizer step {_shown(step.get('type'))} is not a lossless Split by Regex"
            )
        _check_pattern(regex, path)
    return {"type": "Sequence", "pretokenizers": steps}


def _check_pattern(pattern: str, path: Path) -> None:
    """Refuse patterns that can take exponential time: a repeated group, or a back reference."""
    bare = re.sub(r"\[(?:\\.|[^\]\\])*\]", "x", pattern)  # classes hold literal brackets and signs
    if (
        len(pattern) > MAX_PATTERN_CHARS
        or re.search(r"\\[1-9gk]", bare)
        or re.search(r"(?<!\\)\)[*+{]", bare)
    ):
        raise _refuse(
            path, f"the Split pattern {pattern[:80]!r} repeats a group or is too long and could run away"
        )


def _native_backend(
    model: Mapping[str, Any], vocab: Mapping[str, int], pre_tokenizer: dict[str, Any]
) -> Tokenizer:
    with native_calls("while loading"):
        merges = model["merges"]
        if len(vocab) != len(model["vocab"]):
            merges = [merge for merge in merges if _merge_parts(merge) <= vocab.keys()]
        document: dict[str, Any] = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": pre_tokenizer,
            "post_processor": None,
            "decoder": None,
            # All bytes are in the vocabulary (checked below), so there is nothing unknown to stand in for.
            "model": {**model, "type": "BPE", "unk_token": None, "vocab": vocab, "merges": merges},
        }
        return Tokenizer.from_str(json.dumps(document))


def _merge_parts(merge: Any) -> set[str]:
    left, _, right = merge.partition(" ") if isinstance(merge, str) else (merge[0], "", merge[1])
    return {left, right, left + right}


def _probe(backend: Tokenizer, path: Path) -> None:
    """Encode a few strings: shows a pattern that panics or drops text, and a vocabulary that lacks bytes."""
    table = byte_of_symbol()
    for text in _PROBES:
        with native_calls("while encoding"):
            tokens = backend.encode(text, add_special_tokens=False).tokens
        if bytes(table.get(symbol, 0) for token in tokens for symbol in token) != text.encode():
            raise _refuse(
                path, f"encoding {text[:20]!r} loses text (a byte is missing or the pattern drops it)"
            )


def byte_of_symbol() -> dict[str, int]:
    """The byte-level alphabet: printable stand-in character -> byte.

    Source: GPT-2's byte-level BPE; printable Latin-1 bytes stand for themselves, the rest follow from U+0100.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + rank): byte for rank, byte in enumerate(others)
    }
