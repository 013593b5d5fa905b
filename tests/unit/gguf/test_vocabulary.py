"""The tokenizer as GGUF: every entry, every row, and the rules for cutting text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from gguf import TokenType
from jinja2.sandbox import ImmutableSandboxedEnvironment

from phi4.checkpoint import Checkpoint
from phi4.errors import InvalidArtifact
from phi4.gguf import write_gguf
from phi4.gguf.vocabulary import read_vocabulary
from phi4.processing.chat import ChatRenderer
from phi4.processing.chat_template import CHAT_TEMPLATE
from phi4.processing.messages import parse_messages
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.processing.tokenizer_build import build_tokenizer
from phi4.processing.tokenizer_file import byte_of_symbol
from phi4.processing.tools import render_tools
from phi4.testing.tiny import write_tiny_tokenizer

TOOL = {
    "name": "turn_on",
    "description": "turn on a light",
    "parameters": {"room": {"type": "str", "description": "where"}},
}


def edited(folder: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """The tiny tokenizer with its file changed by `edit`."""
    write_tiny_tokenizer(folder)
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    edit(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    return folder


def bytes_of(token: str, kind: int) -> bytes:
    """What llama.cpp prints for an entry of this type."""
    if kind == TokenType.UNUSED:
        return b""
    if kind == TokenType.CONTROL:
        return token.encode()
    table = byte_of_symbol()
    return bytes(table[symbol] for symbol in token)


def test_every_token_s_bytes_come_back(nano: Checkpoint, tmp_path: Path, read: Any) -> None:
    write_gguf(nano, nano.path, tmp_path / "nano.gguf", "float16")
    fields = read(tmp_path / "nano.gguf").fields
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    tokenizer = Phi4Tokenizer.load(nano.path)
    assert len(tokens) == len(types) == nano.config.decoder.vocab_size
    for token_id, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        assert bytes_of(token, kind) == tokenizer.token_bytes(token_id), token_id


def test_metadata_name_the_tokenizer_and_its_roles(nano: Checkpoint, tmp_path: Path, read: Any) -> None:
    write_gguf(nano, nano.path, tmp_path / "nano.gguf", "float16")
    fields = read(tmp_path / "nano.gguf").fields
    roles = Phi4Tokenizer.load(nano.path).tokens
    found = {key.removeprefix("tokenizer.ggml."): value for key, value in fields.items()}
    assert (found["model"], found["pre"]) == ("gpt2", "gpt-4o")
    assert {found[f"{role}_token_id"] for role in ("bos", "eos", "padding")} == {roles.endoftext}
    assert found["eot_token_id"] == roles.end
    assert found["add_bos_token"] is False and found["add_eos_token"] is False
    assert found["tokenizer.chat_template"] == CHAT_TEMPLATE


def test_merges_keep_their_order(nano: Checkpoint, tmp_path: Path, read: Any) -> None:
    write_gguf(nano, nano.path, tmp_path / "nano.gguf", "float16")
    written = read(tmp_path / "nano.gguf").fields["tokenizer.ggml.merges"]
    document = json.loads((nano.path / "tokenizer.json").read_text(encoding="utf-8"))
    assert [merge.split(" ") for merge in written] == document["model"]["merges"]


def test_all_added_tokens_are_control_tokens_also_the_tool_markers(tmp_path: Path) -> None:
    tokenizer = write_tiny_tokenizer(tmp_path)
    vocabulary = read_vocabulary(tmp_path, 320)
    control = {i for i, kind in enumerate(vocabulary.types) if kind == TokenType.CONTROL}
    assert control == tokenizer.control_ids
    assert not all(token.special for token in tokenizer.added_tokens)


def test_rows_without_a_token_are_unused_and_named_apart(tmp_path: Path) -> None:
    def rename(document: dict[str, Any]) -> None:
        document["added_tokens"][-1]["content"] = "[PAD322]"

    count = 1 + max(write_tiny_tokenizer(tmp_path / "plain").control_ids)
    vocabulary = read_vocabulary(edited(tmp_path / "renamed", rename), 330)
    assert count < 322
    assert vocabulary.types[count:] == (TokenType.UNUSED,) * (330 - count)
    assert vocabulary.tokens[321] == b"[PAD321]" and vocabulary.tokens[322] != b"[PAD322]"
    assert len(set(vocabulary.tokens)) == 330


def test_an_id_beyond_the_embedding_is_refused(tmp_path: Path) -> None:
    write_tiny_tokenizer(tmp_path)
    with pytest.raises(InvalidArtifact, match="valid are 0 to 299"):
        read_vocabulary(tmp_path, 300)


def test_tokens_that_become_alike_are_refused(tmp_path: Path) -> None:
    def break_two(document: dict[str, Any]) -> None:
        for entry, half in zip(document["added_tokens"][-2:], ("\ud800", "\ud801"), strict=True):
            entry["content"] = f"<{half}>"

    with pytest.raises(InvalidArtifact, match="spelt alike"):
        read_vocabulary(edited(tmp_path, break_two), 320)


def test_a_tokenizer_without_merges_is_refused(tmp_path: Path) -> None:
    build_tokenizer(["abc"], 270, tmp_path)
    with pytest.raises(InvalidArtifact, match="no merges"):
        read_vocabulary(tmp_path, 270)


def test_single_digits_pass_since_no_merge_joins_them(nano: Checkpoint) -> None:
    assert r"\p{N}{1,3}" not in (nano.path / "tokenizer.json").read_text(encoding="utf-8")
    assert read_vocabulary(nano.path, nano.config.decoder.vocab_size).merges


def test_single_digits_with_a_merge_that_joins_them_are_refused(tmp_path: Path) -> None:
    def join(document: dict[str, Any]) -> None:
        model, used = document["model"], {entry["id"] for entry in document["added_tokens"]}
        model["vocab"]["12"] = 1 + max(used)
        model["merges"].append(["1", "2"])

    with pytest.raises(InvalidArtifact, match="does not cut text by the o200k rules"):
        read_vocabulary(edited(tmp_path, join), 340)


def test_other_rules_are_refused(tmp_path: Path) -> None:
    def words_only(document: dict[str, Any]) -> None:
        document["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\s?\S"

    with pytest.raises(InvalidArtifact, match="does not cut text by the o200k rules"):
        read_vocabulary(edited(tmp_path, words_only), 320)


@pytest.mark.parametrize("open_end", [True, False])
@pytest.mark.parametrize(
    "turns",
    [
        [{"role": "user", "content": "Hi, who are you?"}],
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Say 12 + 7\nand why {{ x }} {% y %}"},
            {"role": "assistant", "content": "19"},
            {"role": "user", "content": "Thanks"},
        ],
        [
            {"role": "user", "content": "light"},
            {"role": "assistant", "content": "on it"},
            {"role": "tool", "content": '{"ok": true}'},
        ],
    ],
)
def test_the_chat_template_renders_what_the_renderer_does(
    nano: Checkpoint, turns: list[Mapping[str, Any]], open_end: bool
) -> None:
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(CHAT_TEMPLATE)
    renderer = ChatRenderer(Phi4Tokenizer.load(nano.path))
    rendered = renderer.render(parse_messages(turns), add_generation_prompt=open_end)
    assert template.render(messages=turns, add_generation_prompt=open_end) == rendered.text


def test_the_chat_template_shows_tools_in_the_system_turn(nano: Checkpoint) -> None:
    template = ImmutableSandboxedEnvironment().from_string(CHAT_TEMPLATE)
    turns = [{"role": "system", "content": "Use tools."}, {"role": "user", "content": "light"}]
    renderer = ChatRenderer(Phi4Tokenizer.load(nano.path))
    expected = renderer.render(parse_messages(turns), tools=[TOOL]).text
    with_tools = [{**turns[0], "tools": render_tools([TOOL])}, turns[1]]
    assert template.render(messages=with_tools, add_generation_prompt=True) == expected
