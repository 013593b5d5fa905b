"""A model without a modality's adapter says so, and a user's adapter never takes that one's name."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from phi4.configs import AdapterConfig, Phi4Config
from phi4.engine.adapters import (
    check_user_adapter,
    choose_adapters,
    media_without_adapter,
    warn_without_adapter,
)
from phi4.errors import InvalidRequest
from phi4.testing.tiny import tiny_config
from phi4.types import AudioArrays, ImageArrays, ModelInputs

PICTURE = ImageArrays(np.zeros((1, 3, 2, 2), np.float32), np.ones((1, 1, 1), np.bool_), (2, 2), 1, "picture")
VOICE = AudioArrays(np.zeros((8, 80), np.float32), 1, 0.1, "voice")


def without(*names: str) -> Phi4Config:
    """The tiny model without some of its adapters."""
    config = tiny_config()
    return replace(config, adapters=tuple(a for a in config.adapters if a.name not in names))


@pytest.mark.parametrize(
    ("missing", "inputs", "names"),
    [
        ((), ModelInputs(np.arange(3)), ("mine",)),
        ((), ModelInputs(np.arange(3), (PICTURE,)), ("vision", "mine")),
        (("vision",), ModelInputs(np.arange(3), (PICTURE,)), ("mine",)),
        (("vision",), ModelInputs(np.arange(3), (), (VOICE,)), ("speech", "mine")),
    ],
)
def test_a_prompt_gets_the_adapters_that_are_there(
    missing: tuple[str, ...], inputs: ModelInputs, names: tuple[str, ...]
) -> None:
    assert choose_adapters(without(*missing), inputs, "mine").adapters == names


def test_the_projector_follows_the_media_whatever_adapters_are_there() -> None:
    inputs = ModelInputs(np.arange(3), (PICTURE,), (VOICE,))
    assert choose_adapters(without("vision", "speech"), inputs).audio_projector == "vision"


def test_encoders_without_adapter_are_named_with_what_they_take() -> None:
    assert media_without_adapter(tiny_config()) == {}
    assert media_without_adapter(tiny_config("mini")) == {}
    assert media_without_adapter(without("speech")) == {"speech": "recordings"}
    stranger = replace(without("vision", "speech"), adapters=(AdapterConfig("style", 2, 4),))
    assert media_without_adapter(stranger) == {"vision": "pictures", "speech": "recordings"}


def test_each_loaded_encoder_without_adapter_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    config = without("vision", "speech")
    with caplog.at_level(logging.WARNING):
        warn_without_adapter(tiny_config())
        warn_without_adapter(config, ("text",))
        assert caplog.messages == []
        warn_without_adapter(config, ("text", "speech"))
        assert len(caplog.messages) == 1
        assert "speech encoder" in caplog.text and "recordings run on the base weights" in caplog.text
        warn_without_adapter(config)
    assert len(caplog.messages) == 3 and "vision-lora/" in caplog.text


@pytest.mark.parametrize("name", ["vision", "speech"])
def test_the_name_of_a_modalitys_adapter_is_refused_for_ones_own(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"'{name}'.*rename its folder"):
        check_user_adapter(name)


def test_any_other_name_is_free() -> None:
    for name in (None, "mine", "vision-2", "speech_lora"):
        check_user_adapter(name)
