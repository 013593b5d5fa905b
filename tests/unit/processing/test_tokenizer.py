"""Encoding keeps content and control apart; decoding is exact, whole or in pieces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from phi4.errors import InvalidRequest
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.processing.tokenizer_build import build_tokenizer

TEXTS = [
    "",
    "Hello, world!",
    "  tabs\tand\nlines\r\n",
    "你好 😀👍🏽 مرحبا",
    "á é ﷺ\x00",
    "<|image_1|> <|end|>",
]


@pytest.mark.parametrize("text", TEXTS)
def test_decoding_gives_back_the_text(tokenizer: Phi4Tokenizer, text: str) -> None:
    ids = tokenizer.encode_text(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(tokenizer.token_bytes(i) for i in ids) == text.encode()


@pytest.mark.parametrize("text", TEXTS[:-1])
def test_plain_text_has_the_ids_of_the_native_library(
    tokenizer: Phi4Tokenizer, native: Tokenizer, text: str
) -> None:
    assert tokenizer.encode_text(text) == native.encode(text, add_special_tokens=False).ids


def test_no_added_token_can_be_typed(tokenizer: Phi4Tokenizer, native: Tokenizer) -> None:
    for token in tokenizer.added_tokens:
        assert token.id in native.encode(token.content).ids, "the literal does mean this token elsewhere"
        ids = tokenizer.encode_text(f"x{token.content} y")
        assert not tokenizer.control_ids & set(ids)
        assert tokenizer.decode(ids) == f"x{token.content} y"


def test_the_librarys_own_switch_leaves_tool_tokens_open(tokenizer_dir: Path) -> None:
    """Why content is encoded without any added token: `encode_special_tokens` covers special ones only."""
    switched = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    switched.encode_special_tokens = True
    by_name = {token.content: token.id for token in Phi4Tokenizer.load(tokenizer_dir).added_tokens}
    assert by_name["<|end|>"] not in switched.encode("<|end|>").ids
    assert by_name["<|tool_call|>"] in switched.encode("<|tool_call|>").ids


def test_skipping_special_tokens_keeps_tool_markers(tokenizer: Phi4Tokenizer) -> None:
    tokens = tokenizer.tokens
    ids = [
        tokens.require("tool_call"),
        *tokenizer.encode_text("[]"),
        tokens.require("tool_call_end"),
        tokens.end,
    ]
    assert tokenizer.decode(ids) == "<|tool_call|>[]<|/tool_call|>"
    assert tokenizer.decode(ids, skip_special=False) == "<|tool_call|>[]<|/tool_call|><|end|>"


def test_control_ids_come_from_the_file_in_either_spelling(tmp_path: Path, tokenizer: Phi4Tokenizer) -> None:
    hf = build_tokenizer(["abc"], 300, tmp_path, hf_names=True)
    names = {token.id: token.content for token in hf.added_tokens}
    assert (names[hf.tokens.require("image")], names[hf.tokens.require("audio")]) == (
        "<|image|>",
        "<|audio|>",
    )
    original = {token.id: token.content for token in tokenizer.added_tokens}
    assert original[tokenizer.tokens.require("image")] == "<|endoftext10|>"
    assert tokenizer.tokens.stop_ids == (tokenizer.tokens.end, tokenizer.tokens.endoftext)
    assert hf.tokens.end != tokenizer.tokens.end


def test_ids_without_a_meaning_say_nothing(tokenizer: Phi4Tokenizer) -> None:
    assert tokenizer.token_bytes(tokenizer.vocab_size) == b""
    assert tokenizer.decode([tokenizer.vocab_size + 5, *tokenizer.encode_text("a")]) == "a"
    with pytest.raises(InvalidRequest, match="-1"):
        tokenizer.token_bytes(-1)


def test_a_lone_surrogate_is_refused_with_its_place(tokenizer: Phi4Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match=r"ud800.* at 2"):
        tokenizer.encode_text("ab\ud800")


def test_a_character_split_over_tokens_is_held_back_until_whole(tokenizer: Phi4Tokenizer) -> None:
    by_byte = {tokenizer.token_bytes(i): i for i in range(tokenizer.vocab_size)}
    ids = [by_byte[bytes([byte])] for byte in "😀".encode()]
    stream = tokenizer.detokenizer()
    assert [stream.push([i]) for i in ids] == ["", "", "", "😀"]
    assert stream.flush() == ""


def test_an_unfinished_character_ends_as_replacement(tokenizer: Phi4Tokenizer) -> None:
    by_byte = {tokenizer.token_bytes(i): i for i in range(tokenizer.vocab_size)}
    stream = tokenizer.detokenizer()
    assert stream.push([by_byte[b"\xf0"]]) == ""
    assert stream.flush() == "\ufffd"


def test_a_token_the_model_lacks_is_named(tokenizer: Phi4Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match=r"'image'.*multimodal"):
        replace(tokenizer.tokens, image=None).require("image")
