"""Hostile and broken tokenizer files end in one clear error, also where the native library panics."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from phi4.errors import InvalidArtifact
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.processing.tokenizer_file import native_calls

Document = dict[str, Any]


@pytest.fixture
def rewrite(tokenizer_dir: Path, tmp_path: Path) -> Callable[[Callable[[Document], object]], Path]:
    """Write a changed copy of the good file and return its directory."""

    def write(change: Callable[[Document], object]) -> Path:
        document = json.loads((tokenizer_dir / "tokenizer.json").read_text())
        change(document)
        (tmp_path / "tokenizer.json").write_text(json.dumps(document))
        return tmp_path

    return write


Rewrite = Callable[[Callable[[Document], object]], Path]


def set_id(token_id: object) -> Callable[[Document], object]:
    return lambda document: document["added_tokens"][5].update(id=token_id)


def split_by(regex: str, behavior: str = "Isolated") -> Callable[[Document], object]:
    step = {"pattern": {"Regex": regex}, "behavior": behavior}
    return lambda document: document["pre_tokenizer"]["pretokenizers"][0].update(step)


HOSTILE: dict[str, tuple[Callable[[Document], object], str]] = {
    "id beyond the vocabulary": (set_id(4_000_000_000), "'<|end|>' has id 4000000000, valid are 0 to"),
    "negative id": (set_id(-1), "has id -1"),
    "id that is no number": (set_id("7"), "whole-number"),
    "id that is a truth value": (set_id(True), "whole-number"),
    "id used twice": (set_id(0), "id 0 is used by both"),
    "vocabulary id used twice": (lambda d: d["model"]["vocab"].update({"!": 5}), "id 5 is used by both"),
    "vocabulary id too large": (lambda d: d["model"]["vocab"].update(zz=2**32 - 1), "has id 4294967295"),
    "literal defined twice": (lambda d: d["added_tokens"][5].update(content="<|user|>"), "appears twice"),
    "control token missing": (lambda d: d["added_tokens"].pop(5), "<|end|> is missing"),
    "placeholder under both names": (
        lambda d: d["added_tokens"][3].update(content="<|image|>"),
        "both <|endoftext10|> and <|image|>",
    ),
    "id differs from the vocabulary's": (
        lambda d: d["model"]["vocab"].update({"<|end|>": 599}),
        "vocabulary says",
    ),
    "pattern of exponential time": (split_by(r"(a+)+$"), "could run away"),
    "pattern of polynomial time that panics": (
        split_by(r"a*a*a*a*a*a*a*a*[^\x00-\x7f]"),
        "failed while encoding",
    ),
    "pattern with a back reference": (split_by(r"(a)\1"), "could run away"),
    "pattern that is no regular expression": (split_by(r"(a"), "failed while loading"),
    "pattern that drops text": (split_by(r"a", "Removed"), "lossless"),
    "unknown component": (lambda d: d["pre_tokenizer"]["pretokenizers"][0].update(type="Magic"), "Magic"),
    "no pre-tokenizer": (lambda d: d.update(pre_tokenizer=None), "pre_tokenizer must"),
    "prefix space": (
        lambda d: d["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True),
        "prefix space",
    ),
    "normalizer": (lambda d: d.update(normalizer={"type": "NFKC"}), "normalizer"),
    "another model": (lambda d: d["model"].update(type="WordPiece"), "not a byte-level BPE"),
    "dropout": (lambda d: d["model"].update(dropout=0.5), "model.dropout"),
    "merge of unknown parts": (
        lambda d: d["model"]["merges"].insert(0, ["qq", "zz"]),
        "failed while loading",
    ),
    "a byte is missing": (lambda d: d["model"].update(vocab=_without(d, "a"), merges=[]), "loses text"),
    "entry that is not byte-level": (lambda d: d["model"]["vocab"].update({"\u4f60": 599}), "not byte-level"),
    "added tokens are no list": (lambda d: d.update(added_tokens={"a": 1}), "must be a list"),
    "no vocabulary": (lambda d: d["model"].pop("vocab"), "model.vocab"),
}


def _without(document: Document, symbol: str) -> dict[str, int]:
    return {key: value for key, value in document["model"]["vocab"].items() if key != symbol}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_file_is_refused(rewrite: Rewrite, case: str) -> None:
    change, message = HOSTILE[case]
    with pytest.raises(InvalidArtifact, match=message.replace("|>", r"\|>").replace("<|", r"<\|")):
        Phi4Tokenizer.load(rewrite(change))


RAW = {
    "empty": (b"", "not a valid JSON file"),
    "not JSON": (b"{", "not a valid JSON file"),
    "not UTF-8": (b"\xff\xfe\x00", "not a valid JSON file"),
    "a list": (b"[]", "must be a JSON object"),
    "nested deeply": (b"[" * 200_000, "not a valid JSON file .*recursion"),
    "repeated key": (b'{"model": 1, "model": 2}', "stands twice"),
}


@pytest.mark.parametrize("case", RAW)
def test_broken_bytes_are_refused(tmp_path: Path, case: str) -> None:
    content, message = RAW[case]
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(InvalidArtifact, match=message):
        Phi4Tokenizer.load(tmp_path)


def test_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidArtifact, match=r"tokenizer\.json: does not exist.*give a directory"):
        Phi4Tokenizer.load(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.timeout(20)
def test_pipe_without_writer_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "tokenizer.json").symlink_to("pipe")
    with pytest.raises(InvalidArtifact, match=r"tokenizer\.json: not a regular file"):
        Phi4Tokenizer.load(tmp_path)


def test_file_over_the_size_limit_is_refused_without_reading_it(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(2**40)  # sparse: takes no room on the disk
    with pytest.raises(InvalidArtifact, match=r"tokenizer\.json: 1099511627776 bytes.* at most 67108864"):
        Phi4Tokenizer.load(tmp_path)


def test_ids_beyond_the_models_embedding_are_refused(tokenizer_dir: Path, tokenizer: Phi4Tokenizer) -> None:
    assert Phi4Tokenizer.load(tokenizer_dir, tokenizer.vocab_size).vocab_size == tokenizer.vocab_size
    with pytest.raises(InvalidArtifact, match="belong together"):
        Phi4Tokenizer.load(tokenizer_dir, tokenizer.vocab_size - 1)


def test_ids_after_a_gap_are_kept_where_the_library_renumbers_them(rewrite: Rewrite) -> None:
    """The released file has gaps (199998, 200012 to 200017); its ids are the model's rows and must stand."""

    def spread(document: Document) -> None:
        for token in document["added_tokens"]:
            token["id"] += 1000

    directory = rewrite(spread)
    ours = Phi4Tokenizer.load(directory)
    assert ours.tokens.end >= 1256
    assert ours.vocab_size == 1 + max(ours.control_ids)
    renumbered = Tokenizer.from_file(str(directory / "tokenizer.json")).encode("<|end|>").ids
    assert renumbered != [ours.tokens.end], "the library numbers added tokens on its own"


def test_control_tokens_inside_the_vocabulary_stay_out_of_reach(rewrite: Rewrite) -> None:
    """Some files list control tokens among the ordinary entries, with merges leading there."""

    def include(document: Document) -> None:
        model = document["model"]
        end = next(token for token in document["added_tokens"] if token["content"] == "<|end|>")
        parts = ["<", "<|", "<|e", "<|en", "<|end", "<|end|", "<|end|>"]
        for rank, part in enumerate(part for part in parts if part not in model["vocab"]):
            model["vocab"][part] = end["id"] if part == "<|end|>" else 700 + rank
        model["merges"] = [[left, right[-1]] for left, right in itertools.pairwise(parts)]
        model["vocab"] = {k: v for k, v in model["vocab"].items() if len(k) == 1 or k in parts}
        document["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\S+|\s+"
        model["ignore_merges"] = True

    tokenizer = Phi4Tokenizer.load(rewrite(include))
    ids = tokenizer.encode_text("<|end|>")
    assert tokenizer.tokens.end not in ids
    assert tokenizer.decode(ids) == "<|end|>"


def test_only_failures_of_the_library_are_translated() -> None:
    with pytest.raises(KeyboardInterrupt), native_calls("never"):
        raise KeyboardInterrupt
    panic = type("PanicException", (BaseException,), {})
    with pytest.raises(InvalidArtifact, match="while testing: boom"), native_calls("while testing"):
        raise panic("boom")
