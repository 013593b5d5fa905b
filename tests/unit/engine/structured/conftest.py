"""A small tokenizer, the compiler over it, and a writer that would like to say anything."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from phi4.engine.structured.compiler import GrammarCompiler
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.testing.tiny import write_tiny_tokenizer
from phi4.testing.writing import Writer

VOCAB = 352  # entries of a logit row; the tokenizer has 320 ids, as released rows are longer than theirs, too


@pytest.fixture(scope="session")
def small_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Phi4Tokenizer:
    return write_tiny_tokenizer(tmp_path_factory.mktemp("grammar"), vocab_size=320)


@pytest.fixture
def writer(small_tokenizer: Phi4Tokenizer) -> Writer:
    return Writer(small_tokenizer, VOCAB)


@pytest.fixture(scope="session")
def compiler(small_tokenizer: Phi4Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(small_tokenizer, VOCAB)


@pytest.fixture
def make_compiler(small_tokenizer: Phi4Tokenizer) -> Callable[..., GrammarCompiler]:
    """A compiler of a test's own, with the options given."""
    return lambda **options: GrammarCompiler(small_tokenizer, VOCAB, **options)
