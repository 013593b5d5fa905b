"""Training a tokenizer: same bytes every time, released control tokens, o200k word rules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Regex, pre_tokenizers

from phi4.errors import InvalidRequest
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.processing.tokenizer_build import RELEASED_CONTROLS, build_tokenizer, o200k_pattern


def pieces(text: str, max_digits: int = 3) -> list[str]:
    split = pre_tokenizers.Split(Regex(o200k_pattern(max_digits)), "isolated")
    return [piece for piece, _ in split.pre_tokenize_str(text)]


def test_the_same_texts_give_the_same_file(tmp_path: Path) -> None:
    texts = [f"room {i % 7} has {i} lamps and a window" for i in range(200)]
    for name in ("a", "b"):
        build_tokenizer(iter(texts), 400, tmp_path / name)
    first, second = ((tmp_path / name / "tokenizer.json").read_bytes() for name in ("a", "b"))
    assert first == second


def test_control_tokens_have_the_last_ids_and_the_released_flags(tokenizer: Phi4Tokenizer) -> None:
    size = tokenizer.vocab_size
    assert size <= 600
    assert [token.id for token in tokenizer.added_tokens] == list(range(size - len(RELEASED_CONTROLS), size))
    flags = [(token.content, token.special, token.rstrip) for token in tokenizer.added_tokens]
    assert flags == list(RELEASED_CONTROLS)


def test_every_digit_is_a_token_of_its_own(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(["123456 123456 123456"] * 50, 300, tmp_path)
    assert len(tokenizer.encode_text("123456")) == 6


def test_frequent_words_become_one_token(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(["kitchen"] * 9, 280, tmp_path)
    assert len(tokenizer.encode_text("kitchen")) == 1
    assert tokenizer.vocab_size < 280, "there are no more pairs to merge, and none are made up"


def test_too_small_a_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"269 is too small.* 270"):
        build_tokenizer(["a"], 269, tmp_path)


def test_pieces_fit_the_golden_ids_of_o200k(repository: Path) -> None:
    """Without the released vocabulary ids cannot be compared, but pieces must fit them.

    A piece is one token or more, so a text has no more pieces than ids. Where the numbers are equal each
    piece is one id: the pairing must be the same in all texts, and printable ASCII has the ids 0 to 93.
    """
    cases = json.loads((repository / "tests/data/golden/golden_tokens.json").read_text())["cases"]
    id_of: dict[str, int] = {}
    piece_of: dict[int, str] = {}
    for case in cases:
        found, ids = pieces(case["text"]), case["ids"]
        assert "".join(found) == case["text"]
        assert len(found) <= len(ids), (case["text"], found)
        for piece, token_id in zip(found, ids, strict=True) if len(found) == len(ids) else ():
            assert id_of.setdefault(piece, token_id) == token_id
            assert piece_of.setdefault(token_id, piece) == piece
            assert token_id >= 94 or piece == chr(token_id + 33)
    assert len(piece_of) > 100, "enough texts pair up for the check to mean something"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("camelCase ALLCAPS", ["camel", "Case", " ALLCAPS"]),
        ("don't DON'T we'll", ["don't", " DON'T", " we'll"]),
        ("1234567", ["123", "456", "7"]),
        ("a  b\n\n c", ["a", " ", " b", "\n\n", " c"]),
        ("x = y//2", ["x", " =", " y", "//", "2"]),
        ("end  ", ["end", "  "]),
    ],
)
def test_words_are_cut_by_the_o200k_rules(text: str, expected: list[str]) -> None:
    assert pieces(text) == expected
