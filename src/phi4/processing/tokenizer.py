"""Text to token ids and back, with control tokens kept out of content's reach.

`Phi4Tokenizer.load(dir)` reads the model's `tokenizer.json`. `encode_text` knows no control tokens
at all, so whatever a user types stays text; control ids are placed by the chat renderer from
`tokens` (`ModelTokens`), which are looked up by name in the file and never assumed.
`detokenizer()` turns a stream of ids into text, holding back half-finished UTF-8 characters.

Left out on purpose: parsing control tokens from a string, padding, truncation and batch encoding.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from phi4.errors import InvalidArtifact, InvalidRequest
from phi4.processing.tokenizer_file import (
    AddedToken,
    TokenizerParts,
    byte_of_symbol,
    native_calls,
    read_tokenizer_file,
)

# Names as released; the picture and audio placeholders are spelt differently in the two layouts.
_REQUIRED = {
    "end": ("<|end|>",),
    "endoftext": ("<|endoftext|>",),
    "user": ("<|user|>",),
    "assistant": ("<|assistant|>",),
    "system": ("<|system|>",),
}
_OPTIONAL = {
    "tool": ("<|tool|>",),
    "tool_end": ("<|/tool|>",),
    "tool_call": ("<|tool_call|>",),
    "tool_call_end": ("<|/tool_call|>",),
    "tool_response": ("<|tool_response|>",),
    "image": ("<|endoftext10|>", "<|image|>"),
    "audio": ("<|endoftext11|>", "<|audio|>"),
}


@dataclass(frozen=True)
class ModelTokens:
    """Ids of the control tokens, as this model's tokenizer file states them.

    Tokens a model may lack are None: phi-4-mini has no `image` and `audio`.
    """

    end: int
    endoftext: int
    user: int
    assistant: int
    system: int
    tool: int | None = None
    tool_end: int | None = None
    tool_call: int | None = None
    tool_call_end: int | None = None
    tool_response: int | None = None
    image: int | None = None
    audio: int | None = None

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end an answer: the end of a turn and the end of text."""
        return (self.end, self.endoftext)

    @property
    def pad(self) -> int:
        """Id that fills rows of a batch; the released models use the end-of-text token."""
        return self.endoftext

    def require(self, name: str) -> int:
        """Return the id called `name`.

        Raises:
            InvalidRequest: This model's tokenizer has no such token.
        """
        token_id = getattr(self, name)
        if token_id is None:
            raise InvalidRequest(
                f"this model has no {name!r} token ({' or '.join(_OPTIONAL[name])}), so it cannot take such "
                "content; use a model that can, for instance a multimodal one"
            )
        return int(token_id)


class Phi4Tokenizer:
    """A byte-level BPE tokenizer with the released control tokens.

    Attributes:
        tokens: Control ids by role.
        vocab_size: One more than the largest id in the file.
        control_ids: Ids of all added tokens, special or not.
    """

    def __init__(self, parts: TokenizerParts) -> None:
        """Wrap an already checked file; most callers want `load`."""
        self._backend = parts.backend
        self._added = {token.id: token for token in parts.added}
        self.control_ids = frozenset(self._added)
        self.tokens = _find_tokens(parts.added)
        self.vocab_size = 1 + max([*parts.vocab.values(), *self._added])
        self._bytes = _token_bytes(parts, self.vocab_size)

    @classmethod
    def load(cls, directory: str | Path, vocab_size: int | None = None) -> Phi4Tokenizer:
        """Read `tokenizer.json` from a model directory (or that file itself).

        Args:
            directory: A model directory, or the path of a `tokenizer.json`.
            vocab_size: The config's `vocab_size`; ids at or above it are refused.

        Raises:
            InvalidArtifact: The file is missing, broken, hostile or does not fit the model.
        """
        path = Path(directory)
        if path.is_dir():
            path = path / "tokenizer.json"
        return cls(read_tokenizer_file(path, vocab_size))

    @property
    def added_tokens(self) -> tuple[AddedToken, ...]:
        """All control tokens of the file, in file order."""
        return tuple(self._added.values())

    def control(self, token_id: int) -> AddedToken:
        """Return the control token with this id (a KeyError means a mistake inside the package)."""
        return self._added[token_id]

    def encode_text(self, text: str) -> list[int]:
        """Encode content; literals such as `<|end|>` become ordinary text tokens, never control ids.

        Raises:
            InvalidRequest: The text holds a lone surrogate and is no valid Unicode.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                f"text is not valid Unicode: lone surrogate {text[error.start]!r} at {error.start}; "
                "replace it before sending"
            ) from None
        with native_calls("while encoding"):
            ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes a token stands for; a control token gives its literal, an unassigned id nothing.

        Raises:
            InvalidRequest: The id is negative.
        """
        if token_id < 0:
            raise InvalidRequest(f"token id {token_id} is negative; ids start at 0")
        # An embedding may have more rows (200064) than the tokenizer has ids (200029): those say nothing.
        return self._bytes[token_id] if token_id < self.vocab_size else b""

    def visible_bytes(self, ids: Iterable[int], skip_special: bool = True) -> bytes:
        """Concatenate the bytes of `ids`; `skip_special` drops tokens flagged special, tool markers stay."""
        added = self._added
        return b"".join(
            self.token_bytes(i) for i in ids if not (skip_special and i in added and added[i].special)
        )

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Turn ids into text; invalid UTF-8 becomes U+FFFD.

        Args:
            ids: Token ids.
            skip_special: Drop tokens flagged special. Tool markers are not flagged and stay in the text.
        """
        return self.visible_bytes(ids, skip_special).decode("utf-8", errors="replace")

    def detokenizer(self, skip_special: bool = True) -> Detokenizer:
        """Start an incremental decoder for one stream of ids."""
        return Detokenizer(self, skip_special)


class Detokenizer:
    """Incremental decoding: the pieces from `push` and `flush`, joined, equal `decode` of all ids.

    A character whose bytes are spread over several tokens is held back until it is whole.
    """

    def __init__(self, tokenizer: Phi4Tokenizer, skip_special: bool = True) -> None:
        """Start an empty stream."""
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, ids: Iterable[int]) -> str:
        """Add ids and return the text that is certain now."""
        return self._decoder.decode(self._tokenizer.visible_bytes(ids, self._skip_special))

    def flush(self) -> str:
        """End the stream; an unfinished character becomes U+FFFD."""
        return self._decoder.decode(b"", final=True)


def _find_tokens(added: Iterable[AddedToken]) -> ModelTokens:
    by_name = {token.content: token.id for token in added}
    found: dict[str, int] = {}
    for role, names in (_REQUIRED | _OPTIONAL).items():
        present = [name for name in names if name in by_name]
        if len(present) > 1:
            raise InvalidArtifact(
                f"tokenizer: both {present[0]} and {present[1]} are defined; keep one spelling"
            )
        if present:
            found[role] = by_name[present[0]]
        elif role in _REQUIRED:
            raise InvalidArtifact(
                f"tokenizer: the control token {names[0]} is missing; this is no Phi-4 tokenizer"
            )
    return ModelTokens(**found)


def _token_bytes(parts: TokenizerParts, vocab_size: int) -> list[bytes]:
    table = byte_of_symbol()
    result = [b""] * vocab_size
    for literal, token_id in parts.vocab.items():
        try:
            result[token_id] = bytes([table[symbol] for symbol in literal])
        except KeyError:
            raise InvalidArtifact(
                f"tokenizer: vocabulary entry {ascii(literal)[:80]} is not byte-level"
            ) from None
    for token in parts.added:
        result[token.id] = token.content.encode("utf-8", errors="replace")
    return result
