"""Rows of the small world fit the model that reads them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from phi4.configs import Phi4Config
from phi4.data import TASKS
from phi4.data.calibration import NEEDS, world_inputs
from phi4.errors import InvalidRequest
from phi4.processing.processor import Processor
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.testing.tiny import tiny_config, write_tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Phi4Tokenizer:
    """The tiny model's."""
    return write_tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"), "original")


def model(tokenizer: Phi4Tokenizer, *parts: str) -> Processor:
    whole: Phi4Config = tiny_config(max_positions=4096)
    return Processor(
        replace(
            whole,
            vision=whole.vision if "vision" in parts else None,
            speech=whole.speech if "speech" in parts else None,
            adapters=tuple(adapter for adapter in whole.adapters if adapter.name in parts),
        ),
        tokenizer,
    )


def test_every_task_states_what_it_needs() -> None:
    assert set(NEEDS) == set(TASKS)


def test_text_model_gets_texts_of_every_kind(tokenizer: Phi4Tokenizer) -> None:
    rows = world_inputs(model(tokenizer), 12)
    assert len(rows) == 12 and {row.mode for row in rows} == {"text"}
    assert len({row.token_ids.tobytes() for row in rows}) == 12
    assert sum(row.loss_mask is None for row in rows) == 2, "one task in six is plain text"


def test_model_that_sees_gets_pictures_too(tokenizer: Phi4Tokenizer) -> None:
    modes = [row.mode for row in world_inputs(model(tokenizer, "vision"), 9)]
    assert modes.count("vision") == 3 and modes.count("text") == 6


def test_same_rows_come_again_and_held_out_ones_are_others(tokenizer: Phi4Tokenizer) -> None:
    processor = model(tokenizer)
    first, again, held_out = (
        [row.token_ids.tobytes() for row in world_inputs(processor, 12, split)]
        for split in ("train", "train", "test")
    )
    assert first == again and not set(first) & set(held_out)


def test_no_rows_are_refused(tokenizer: Phi4Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match="0 rows of the small world: must be at least 1"):
        world_inputs(model(tokenizer), 0)
