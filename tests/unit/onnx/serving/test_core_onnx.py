"""The engine on the ONNX runner, which mixes little in a step: random requests say what each says alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phi4.configs import Phi4Config
from phi4.engine.core import EngineCore
from phi4.engine.events import TargetScores
from phi4.engine.longrope import longrope_policy
from phi4.onnx import open_package
from phi4.onnx.serving.runner import OrtRunner
from phi4.onnx.serving.session import SessionChoice
from phi4.processing.mel import audio_arrays
from phi4.processing.tiles import tile_image
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.testing.media import chirp, ramp_picture
from phi4.testing.mixes import Pool, answers_of, mixed_works, outcome
from phi4.testing.tiny import tiny_config, tiny_tensors, write_tiny_tokenizer

CONFIG = tiny_config(original_max=32, max_positions=512)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory, write_package) -> OrtRunner:  # type: ignore[no-untyped-def]
    folder: Path = write_package(tmp_path_factory.mktemp("core") / "p", CONFIG, dict(tiny_tensors(CONFIG)))
    return OrtRunner(open_package(folder), SessionChoice(threads=1), max_rows=4, max_step_tokens=48)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Phi4Tokenizer:
    return write_tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def pool(config: Phi4Config) -> Pool:
    assert config.vision is not None and config.speech is not None
    images = tuple(tile_image(ramp_picture(70 + n, 50), config.vision) for n in range(2))
    audios = tuple(audio_arrays(chirp(0.4 + 0.3 * n), config.speech) for n in range(2))
    return Pool(config.decoder.vocab_size, images, audios, longest_text=40, longest_answer=16)


def test_mixed_batches_equal_their_requests_alone(runner: OrtRunner, tokenizer: Phi4Tokenizer) -> None:
    policy, media = longrope_policy("reference", CONFIG.decoder), pool(CONFIG)
    plain = EngineCore(runner, tokenizer, policy=policy, speculate=False)
    core = EngineCore(
        runner, tokenizer, policy=policy, prefix_positions=400, encoder_tokens=80, prefix_block=8
    )
    for seed in range(40):
        works = mixed_works(seed, media, 2 + seed % 5)
        alone = [answers_of(plain, [work])[0] for work in works]
        together = answers_of(core, mixed_works(seed, media, 2 + seed % 5))
        for left, right in zip(alone, together, strict=True):
            if isinstance(left, TargetScores):
                assert isinstance(right, TargetScores)
                np.testing.assert_allclose(right.logprobs, left.logprobs, atol=1e-4)
            else:
                assert outcome(right) == outcome(left)
    stats = core.stats()
    assert min(stats.prefix_hits, stats.encoder_hits, stats.accepted, stats.rope_crossings) > 0
    core.close()
    assert (runner.num_open, runner.num_handles) == (0, 0)
