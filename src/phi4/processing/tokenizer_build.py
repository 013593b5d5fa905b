"""Training a small byte-level BPE tokenizer that has the released control tokens.

`build_tokenizer(texts, vocab_size, directory)` writes a `tokenizer.json` which `Phi4Tokenizer` and
the `tokenizers` library both read. Words are cut by the o200k rules, except that every digit stands
alone, so that a small model sees the columns of a sum. Control tokens get the last ids. The same
texts give the same bytes.

Left out on purpose: anything for the released tokenizer, which is loaded as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from phi4.errors import InvalidRequest
from phi4.processing.tokenizer import Phi4Tokenizer

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"


def o200k_pattern(max_digits: int = 3) -> str:
    """The o200k_base pre-tokenisation rules; `max_digits` is the longest run of digits kept together.

    Source: tiktoken, `o200k_base` in `tiktoken_ext/openai_public.py`.
    """
    digits = r"\p{N}" if max_digits == 1 else rf"\p{{N}}{{1,{max_digits}}}"
    lead, upper, lower = (
        r"[^\r\n\p{L}\p{N}]?",
        r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]",
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]",
    )
    return "|".join(
        (
            f"{lead}{upper}*{lower}+{_CONTRACTION}",
            f"{lead}{upper}+{lower}*{_CONTRACTION}",
            digits,
            r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
            r"\s*[\r\n]+",
            r"\s+(?!\S)",
            r"\s+",
        )
    )


# (literal, special, rstrip) in the order of the released ids.
RELEASED_CONTROLS: tuple[tuple[str, bool, bool], ...] = (
    ("<|endoftext|>", True, False),
    ("<|endoftext10|>", True, False),
    ("<|endoftext11|>", True, False),
    ("<|endofprompt|>", True, False),
    ("<|assistant|>", True, True),
    ("<|end|>", True, True),
    ("<|user|>", True, True),
    ("<|system|>", True, True),
    ("<|tool|>", False, True),
    ("<|/tool|>", False, True),
    ("<|tool_call|>", False, True),
    ("<|/tool_call|>", False, True),
    ("<|tool_response|>", False, True),
    ("<|tag|>", False, True),
)
_HF_NAMES = {"<|endoftext10|>": "<|image|>", "<|endoftext11|>": "<|audio|>"}


def build_tokenizer(
    texts: Iterable[str], vocab_size: int, directory: str | Path, *, hf_names: bool = False
) -> Phi4Tokenizer:
    """Train on `texts` and write `directory/tokenizer.json`.

    Args:
        texts: Training text, read once.
        vocab_size: Entries wanted, control tokens included; at least 270 (256 bytes and 14 controls).
            Fewer come out when the text has too few different pairs; see the result's `vocab_size`.
        directory: Where to write; made when missing.
        hf_names: Spell the placeholders `<|image|>` and `<|audio|>` as the HF-native layout does.

    Raises:
        InvalidRequest: `vocab_size` is too small.
    """
    smallest = 256 + len(RELEASED_CONTROLS)
    if vocab_size < smallest:
        raise InvalidRequest(
            f"vocab_size {vocab_size} is too small; bytes and control tokens take {smallest}"
        )
    trained = _train_bpe(texts, vocab_size - len(RELEASED_CONTROLS))
    document = json.loads(trained.to_str())
    document["added_tokens"] = _added_entries(len(document["model"]["vocab"]), hf_names)
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, ensure_ascii=False, indent=1)
    (target / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    return Phi4Tokenizer.load(target)


def _train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(o200k_pattern(max_digits=1)), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return tokenizer


def _added_entries(first_id: int, hf_names: bool) -> list[dict[str, Any]]:
    return [
        {
            "id": first_id + rank,
            "content": _HF_NAMES.get(literal, literal) if hf_names else literal,
            "single_word": False,
            "lstrip": False,
            "rstrip": rstrip,
            "normalized": False,
            "special": special,
        }
        for rank, (literal, special, rstrip) in enumerate(RELEASED_CONTROLS)
    ]
