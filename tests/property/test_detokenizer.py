"""Decoding in pieces equals decoding at once, for any ids and any cuts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.processing.tokenizer_build import build_tokenizer

SIZE = 300


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Phi4Tokenizer:
    return build_tokenizer(["你好 Grüße 😀 the light"] * 9, SIZE, tmp_path_factory.mktemp("tokenizer"))


@settings(max_examples=400)
@given(
    ids=st.lists(st.integers(0, SIZE + 4), max_size=30), cuts=st.lists(st.integers(1, 4)), skip=st.booleans()
)
def test_pieces_join_to_the_whole(
    tokenizer: Phi4Tokenizer, ids: list[int], cuts: list[int], skip: bool
) -> None:
    stream, pieces, position = tokenizer.detokenizer(skip), [], 0
    for cut in [*cuts, *[1] * len(ids)]:
        pieces.append(stream.push(ids[position : position + cut]))
        position += cut
    assert "".join([*pieces, stream.flush()]) == tokenizer.decode(ids, skip)


@settings(max_examples=400)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30))
def test_valid_text_never_shows_a_replacement_character(tokenizer: Phi4Tokenizer, text: str) -> None:
    stream, shown = tokenizer.detokenizer(), ""
    for token_id in tokenizer.encode_text(text):
        shown += stream.push([token_id])
        assert text.startswith(shown), "what was shown once is never taken back"
    assert shown + stream.flush() == text


def test_the_fixture_has_multi_byte_merges(tokenizer: Phi4Tokenizer, tmp_path: Path) -> None:
    lengths = {
        len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size) if i not in tokenizer.control_ids
    }
    assert {1, 2, 3} <= lengths
