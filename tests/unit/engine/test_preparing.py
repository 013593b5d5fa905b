"""Choices made at load hold for every prompt, and impossible ones are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from phi4.engine.preparing import LoadedProcessor, check_choices
from phi4.errors import InvalidRequest
from phi4.processing.media import DEFAULT_LIMITS
from phi4.processing.processor import Processor
from phi4.testing.media import ramp_picture
from phi4.testing.tiny import tiny_config, write_tiny_tokenizer
from phi4.types import ImagePart, Message, TextPart

TURN = Message("user", (TextPart("What?"), ImagePart(ramp_picture(200, 100))))


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Processor:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    return Processor(tiny_config(), write_tiny_tokenizer(folder))


def test_without_choices_it_is_the_processor(processor: Processor) -> None:
    chosen, plain = LoadedProcessor(processor).prepare([TURN]), processor.prepare([TURN])
    assert chosen.token_ids.tolist() == plain.token_ids.tolist() and chosen.spans == plain.spans
    assert LoadedProcessor(processor).config is processor.config


def test_fewer_crops_are_fewer_tokens(processor: Processor) -> None:
    full, one = (LoadedProcessor(processor, crops).prepare([TURN]).images[0] for crops in (None, 1))
    assert one.num_tokens < full.num_tokens
    assert len(one.pixels) == 2  # the picture once, and the global view


def test_first_puts_pictures_before_the_text(processor: Processor) -> None:
    inline = LoadedProcessor(processor).prepare([TURN]).spans[0].start
    first = LoadedProcessor(processor, placement="first").prepare([TURN]).spans[0].start
    assert first == 1 < inline  # right behind the role token


def test_more_crops_than_the_model_takes_are_refused(processor: Processor) -> None:
    assert processor.config.vision is not None
    LoadedProcessor(processor, processor.config.vision.max_crops)
    with pytest.raises(InvalidRequest, match="max_crops is 5: this model takes 1 to 4"):
        LoadedProcessor(processor, 5)


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({"max_crops": 0}, "max_crops is 0: give a whole number"),
        ({"max_crops": True}, "max_crops is True"),
        ({"max_crops": "3"}, "max_crops is '3'"),
        ({"placement": "last"}, "placement is 'last'; valid are 'inline' and 'first'"),
        ({"limits": {"max_image_px": 1}}, "limits is .*MediaLimits"),
    ],
)
def test_choices_of_no_model_are_refused(choices: dict[str, Any], says: str) -> None:
    valid: dict[str, Any] = {"max_crops": None, "placement": "inline", "limits": DEFAULT_LIMITS}
    check_choices(**valid)
    with pytest.raises(InvalidRequest, match=says):
        check_choices(**valid | choices)
