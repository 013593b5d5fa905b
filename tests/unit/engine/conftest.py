"""An engine on a scripted runner, for tests of policy without a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from phi4.engine.core import EngineCore
from phi4.engine.longrope import longrope_policy
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.testing.scripted import Logits, ScriptedRunner, babbling
from phi4.testing.tiny import tiny_config, write_tiny_tokenizer
from phi4.types import AudioArrays, ImageArrays, MediaSpan, ModelInputs

VOCAB = 320
MakeCore = Callable[..., tuple[EngineCore, ScriptedRunner]]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Phi4Tokenizer:
    return write_tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"), vocab_size=VOCAB)


@pytest.fixture
def make_core(tokenizer: Phi4Tokenizer) -> MakeCore:
    """`make_core(logits=..., runner=..., boundary=16, engine={...}, **abilities)`."""

    def make(
        logits: Logits | None = None,
        runner: ScriptedRunner | None = None,
        boundary: int = 1000,
        engine: dict[str, Any] | None = None,
        **abilities: Any,
    ) -> tuple[EngineCore, ScriptedRunner]:
        made = runner or ScriptedRunner(logits or babbling(VOCAB), VOCAB, **abilities)
        config = tiny_config(original_max=boundary, max_positions=4 * boundary)
        policy = longrope_policy("reference", config.decoder)
        return EngineCore(made, tokenizer, policy=policy, prefix_block=4, **(engine or {})), made

    return make


@pytest.fixture
def text() -> Callable[..., ModelInputs]:
    """`text(length, seed)`: random tokens."""

    def make(length: int, seed: int = 0) -> ModelInputs:
        return ModelInputs(np.random.default_rng(seed).integers(0, 256, length))

    return make


@pytest.fixture
def shown() -> Callable[..., ModelInputs]:
    """`shown(picture, voice, length)`: a prompt with a picture of 4 and a recording of 2 positions."""

    def make(picture: str = "picture", voice: str = "voice", length: int = 10) -> ModelInputs:
        pixels, mask = np.zeros((1, 3, 2, 2), np.float32), np.ones((1, 1, 1), np.bool_)
        images = (ImageArrays(pixels, mask, (2, 2), 4, picture),)
        audios = (AudioArrays(np.zeros((16, 80), np.float32), 2, 0.2, voice),)
        spans = (MediaSpan("image", 0, 1, 4), MediaSpan("audio", 0, 6, 2))
        return ModelInputs(np.arange(length), images, audios, spans)

    return make
