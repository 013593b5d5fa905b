"""The tokenizer as llama.cpp keeps it: one entry for each row of the embedding, merges, chat template.

    vocabulary = read_vocabulary(folder, config.decoder.vocab_size)

Ordinary entries stay in the byte-level alphabet of `tokenizer.json`, control tokens are spelt as they
are, and rows without a token get a name of their own. llama.cpp has a fixed list of rules for cutting
text; Phi-4's are called "gpt-4o" there, and a tokenizer that cuts otherwise is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from phi4.errors import InvalidArtifact
from phi4.processing.chat_template import CHAT_TEMPLATE
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.processing.tokenizer_build import o200k_pattern
from phi4.processing.tokenizer_file import TokenizerParts, native_calls, read_tokenizer_file

if TYPE_CHECKING:
    from gguf import GGUFWriter

PRE_TOKENIZER = "gpt-4o"
"""llama.cpp's name of the o200k rules. Source: its converter gives Phi-4-mini this name."""

# Every alternative of the o200k rules, with the cases where other rules cut elsewhere.
_PROBES = (
    "camelCase HTTPServer don't DON'T I'll we'VE x'y",
    "1234567 3.14 2024-01-31 a1b22c333 \u0661\u0662\u0663\u0664",
    "path/to/file.txt // comment\n\n{}();\r\n\t  indented   words  ",
    "\u00c9cole \u00fcberAlles \u4f60\u597d\u4e16\u754c \u0928\u092e\u0938\u094d\u0924\u0947 \U0001f600!",
)


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer in GGUF's terms.

    Attributes:
        tokens: UTF-8 spelling by id, all different, as many as the embedding has rows.
        types: llama.cpp's token type by id: normal, control or unused.
        merges: "left right", strongest first.
        endoftext: End of text; begins nothing, pads, and is llama.cpp's `eos`.
        end: End of a turn, llama.cpp's `eot`.
    """

    tokens: tuple[bytes, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    endoftext: int
    end: int


def read_vocabulary(directory: Path, size: int) -> Vocabulary:
    """Read a model's `tokenizer.json` for llama.cpp; needs the `gguf` package.

    Every added token becomes a control token, the tool markers that are not flagged special too: llama.cpp
    reads tokens of any other type out of plain text, so content could forge them.

    Args:
        directory: Where `tokenizer.json` is.
        size: Rows of the embedding; ids at or above it are refused, rows without a token named `[PAD<id>]`.

    Raises:
        InvalidArtifact: The file is missing, broken or hostile, has no merges, or cuts text by other rules.
    """
    path = directory / "tokenizer.json"
    parts = read_tokenizer_file(path, size)
    roles = Phi4Tokenizer(parts).tokens
    merges = _merges(parts)
    if not merges:
        raise InvalidArtifact(f"tokenizer file {path}: has no merges; llama.cpp loads no such tokenizer")
    _check_rules(parts, path)
    tokens, types = _entries(parts, size)
    if len(set(tokens)) < size:
        raise InvalidArtifact(f"tokenizer file {path}: two tokens are spelt alike; llama.cpp refuses that")
    return Vocabulary(tokens, types, merges, roles.endoftext, roles.end)


def add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    """Put the tokenizer into a file's metadata.

    Source: the keys llama.cpp's loader reads; without ids of bos and eos it would take GPT-2's.
    """
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(vocabulary.endoftext)
    writer.add_eos_token_id(vocabulary.endoftext)
    writer.add_eot_token_id(vocabulary.end)
    writer.add_pad_token_id(vocabulary.endoftext)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _entries(parts: TokenizerParts, size: int) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
    from gguf import TokenType

    spelt = {token_id: literal.encode() for literal, token_id in parts.vocab.items()}
    types = dict.fromkeys(spelt, int(TokenType.NORMAL))
    for token in parts.added:
        spelt[token.id] = token.content.encode("utf-8", errors="replace")
        types[token.id] = int(TokenType.CONTROL)
    taken = set(spelt.values())
    for token_id in range(size):
        if token_id not in spelt:
            spelt[token_id] = _padding(token_id, taken)
    ids = range(size)
    return tuple(spelt[i] for i in ids), tuple(types.get(i, int(TokenType.UNUSED)) for i in ids)


def _padding(token_id: int, taken: set[bytes]) -> bytes:
    """The converter's name of a row without a token, made longer while a real token is spelt so."""
    name = f"[PAD{token_id}]".encode()
    while name in taken:
        name += b"_"
    return name


def _merges(parts: TokenizerParts) -> tuple[str, ...]:
    """Merges between ordinary entries; the byte-level alphabet has no space, so one separates the halves."""
    listed = _document(parts)["model"]["merges"]
    return tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in listed)


def _check_rules(parts: TokenizerParts, path: Path) -> None:
    """Refuse a tokenizer that would give other ids under llama.cpp's rules, as far as `_PROBES` show it.

    Compared by what comes out and not by the pattern's spelling: nano's digits stand alone where the o200k
    rules keep three together, but since none of its merges joins digits the ids are the same.
    """
    document = _document(parts)
    document["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": o200k_pattern()}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ],
    }
    document["model"]["ignore_merges"] = False
    with native_calls("while comparing rules"):
        theirs = Tokenizer.from_str(json.dumps(document))
        differing = [text for text in _PROBES if _ids(parts.backend, text) != _ids(theirs, text)]
    if differing:
        raise InvalidArtifact(
            f"tokenizer file {path}: does not cut text by the o200k rules, for instance {differing[0]!r}; "
            "llama.cpp knows no others for this model, so it would read prompts differently"
        )


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _document(parts: TokenizerParts) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(parts.backend.to_str())
    return document
