"""The shipped tiny model is whole, small and always the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phi4.checkpoint import open_checkpoint, sha256_file
from phi4.configs import LAYOUTS, Layout
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.testing.tiny import tiny_config, tiny_tensors, write_tiny_checkpoint


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_written_folder_opens_whole_and_is_small(tmp_path: Path, layout: Layout) -> None:
    config = write_tiny_checkpoint(tmp_path, layout, original_max=16, max_positions=64)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.config.decoder == config.decoder
    assert checkpoint.config.vision == config.vision
    assert checkpoint.config.eos_token_ids == config.eos_token_ids
    tokenizer = Phi4Tokenizer.load(tmp_path, config.decoder.vocab_size)
    assert set(tokenizer.tokens.stop_ids) == set(config.eos_token_ids)
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < 2_000_000


def test_the_same_call_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tiny_checkpoint(tmp_path / name)
    write_tiny_checkpoint(tmp_path / "c", seed=1)
    files = sorted(file.name for file in (tmp_path / "a").iterdir())
    digests = {n: [sha256_file(tmp_path / n / file) for file in files] for n in ("a", "b", "c")}
    assert digests["a"] == digests["b"] != digests["c"]


def test_no_tensor_is_without_effect() -> None:
    for name, values in tiny_tensors(tiny_config()):
        assert values.dtype == np.float32, name
        assert float(np.abs(values).max()) > 0.0, name
        if "norm" in name and name.endswith("weight"):
            assert not np.allclose(values, 1.0), name
