"""A tokenizer for random weights: as many entries and merges as the released one, of no meaning.

    write_tokenizer(folder, 200_064, hf_names=False)

Reading a tokenizer of 200,000 entries is part of the time a model takes to load, so one of 300 would flatter
whoever is measured. Entries are all bytes, then pairs, then pairs with a letter; control tokens have the
released ids where the vocabulary reaches so far, else the last ones. The same call writes the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phi4.processing.tokenizer_build import RELEASED_CONTROLS, o200k_pattern
from phi4.processing.tokenizer_file import byte_of_symbol

RELEASED_VOCABULARY = 200_064
RELEASED_IDS = (199_999, 200_010, 200_011, 200_018, *range(200_019, 200_029))
"""Ids of `RELEASED_CONTROLS`, in their order; the rows behind the last are unused."""
SMALLEST = 256 + 64 + len(RELEASED_CONTROLS)
_HF_NAMES = {"<|endoftext10|>": "<|image|>", "<|endoftext11|>": "<|audio|>"}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def control_ids(vocab_size: int) -> tuple[int, ...]:
    """Ids of the control tokens, in the order of `RELEASED_CONTROLS`; the first ends a text."""
    if vocab_size >= RELEASED_VOCABULARY:
        return RELEASED_IDS
    return tuple(range(vocab_size - len(RELEASED_CONTROLS), vocab_size))


def ordinary_tokens(vocab_size: int) -> int:
    """How many ids, from 0 up, are no control tokens."""
    return control_ids(vocab_size)[0]


def write_tokenizer(folder: Path, vocab_size: int, *, hf_names: bool) -> None:
    """Write `tokenizer.json` and the `tokenizer_config.json` that transformers reads beside it.

    Args:
        folder: Made when missing.
        vocab_size: Rows of the embedding, at least `SMALLEST`.
        hf_names: Spell the placeholders as the HF-native layout does.
    """
    if vocab_size < SMALLEST:
        raise ValueError(f"vocab_size is {vocab_size}; give at least {SMALLEST}")
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "tokenizer.json", _document(vocab_size, hf_names))
    end = RELEASED_CONTROLS[0][0]
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": end,
            "eos_token": end,
            "pad_token": end,
            "unk_token": end,
            "model_max_length": 131072,
        },
    )


def _write(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def _document(vocab_size: int, hf_names: bool) -> dict[str, Any]:
    vocab, merges = _entries(ordinary_tokens(vocab_size))
    added = _added(vocab_size, hf_names)
    # Standing in the vocabulary too, control tokens keep their ids where the tokenizers library reads this.
    vocab |= {token["content"]: token["id"] for token in added}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": o200k_pattern()},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": None,
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }


def _entries(count: int) -> tuple[dict[str, int], list[list[str]]]:
    """Ordinary entries and the merges that make them, `count` of the first."""
    symbols = sorted(byte_of_symbol())
    vocab = {symbol: number for number, symbol in enumerate(symbols)}
    merges: list[list[str]] = []
    for left, right in _pairs(symbols):
        if len(vocab) == count:
            break
        vocab[left + right] = len(vocab)
        merges.append([left, right])
    assert len(vocab) == count, "pairs and triples suffice for the released size"
    return vocab, merges


def _pairs(symbols: list[str]) -> Iterator[tuple[str, str]]:
    """Two symbols, then a pair and a letter; every concatenation is met once."""
    for left in symbols:
        yield from ((left, right) for right in symbols)
    for first in symbols:
        for second in symbols:
            yield from ((first + second, letter) for letter in _LETTERS)


def _added(vocab_size: int, hf_names: bool) -> list[dict[str, Any]]:
    return [
        {
            "id": token_id,
            "content": _HF_NAMES.get(literal, literal) if hf_names else literal,
            "single_word": False,
            "lstrip": False,
            "rstrip": rstrip,
            "normalized": False,
            "special": special,
        }
        for token_id, (literal, special, rstrip) in zip(
            control_ids(vocab_size), RELEASED_CONTROLS, strict=True
        )
    ]
