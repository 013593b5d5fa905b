"""A small tokenizer trained on a few sentences, and the native library's own reading of its file."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.processing.tokenizer_build import build_tokenizer

TEXTS = [
    "The quick brown fox jumps over the lazy dog. It's a test, don't worry!",
    "Turn on the kitchen light and set the volume to 42, please.",
    '[{"name": "set_light", "arguments": {"room": "kitchen", "on": true}}]',
    "<|user|><|end|> spelt out, as a hostile text may do <|tool_call|>",
    "Grüße aus Köln, naïve façade, 你好世界, привет мир 😀",
] * 4


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a `tokenizer.json` of 600 entries, names as in the original layout."""
    directory = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(TEXTS, 600, directory)
    return directory


@pytest.fixture(scope="session")
def tokenizer(tokenizer_dir: Path) -> Phi4Tokenizer:
    return Phi4Tokenizer.load(tokenizer_dir)


@pytest.fixture(scope="session")
def native(tokenizer_dir: Path) -> Tokenizer:
    """The same file through the library alone: parses control tokens out of any string."""
    return Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
