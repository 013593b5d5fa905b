"""What a row computes does not depend, to the last bit, on how many others share its steps.

On the package that ships with phi4, whose weights have 8 bits: float32 rounds alike often enough to hide
what the whole numbers of quantised products make of a last bit.
"""

from __future__ import annotations

import numpy as np
import pytest

from phi4.checkpoint import resolve_model
from phi4.engine.core import EngineCore
from phi4.engine.longrope import longrope_policy
from phi4.engine.runner import Draw, Nothing, Row, SequenceSpec, Slot, StepPlan, TextPiece
from phi4.onnx import open_package
from phi4.onnx.package import OnnxPackage
from phi4.onnx.serving.runner import OrtRunner
from phi4.onnx.serving.session import SessionChoice
from phi4.processing.mel import audio_arrays
from phi4.processing.tiles import tile_image
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.registry import find_form
from phi4.shapes import IntArray
from phi4.testing.media import chirp, ramp_picture
from phi4.testing.mixes import Pool, answers_of, mixed_works

PROMPTS = [np.random.default_rng(n).integers(20, 256, 21 + n) for n in range(9)]


@pytest.fixture(scope="module")
def package() -> OnnxPackage:
    _, folder = find_form("nano", "onnx")
    return open_package(folder)


@pytest.fixture(scope="module")
def runner(package: OnnxPackage) -> OrtRunner:
    return OrtRunner(package, SessionChoice(threads=2), batch_invariant=True)


@pytest.fixture(scope="module")
def tokenizer() -> Phi4Tokenizer:
    return Phi4Tokenizer.load(resolve_model("nano", ("text",)))


def pool(package: OnnxPackage) -> Pool:
    config = package.config
    assert config.vision is not None and config.speech is not None
    images = tuple(tile_image(ramp_picture(70 + n, 50), config.vision) for n in range(2))
    audios = tuple(audio_arrays(chirp(0.4 + 0.3 * n), config.speech) for n in range(2))
    return Pool(config.decoder.vocab_size, images, audios, longest_text=80, longest_answer=24)


def row(slot: Slot, ids: IntArray, num_top: int) -> Row:
    return Row(slot, (TextPiece(ids),), Draw(num_top=num_top))


def begun(runner: OrtRunner, ids: IntArray) -> Slot:
    """A sequence that holds all of a prompt but its last token."""
    slot = runner.open(SequenceSpec((), "short", 100))
    runner.step(StepPlan((Row(slot, (TextPiece(ids[:-1]),), Nothing()),)))
    return slot


def judged(runner: OrtRunner, count: int, place: int) -> np.ndarray:
    """Log-probabilities after the first prompt, `place` rows before it among `count`."""
    prompts = PROMPTS[1 : place + 1] + PROMPTS[:1] + PROMPTS[place + 1 : count]
    slots = [begun(runner, ids) for ids in prompts]
    plan = tuple(row(slot, ids[-1:], 20) for slot, ids in zip(slots, prompts, strict=True))
    result = runner.step(StepPlan(plan)).rows[place]
    for slot in slots:
        runner.close(slot)
    return result.top_logprobs


@pytest.mark.parametrize("count", range(2, 10))
def test_a_row_is_computed_alike_however_many_there_are_and_wherever_it_stands(
    runner: OrtRunner, count: int
) -> None:
    alone = judged(runner, 1, 0)
    for place in range(count):
        assert judged(runner, count, place).tobytes() == alone.tobytes()


def test_it_is_the_pairs_that_do_it(package: OnnxPackage) -> None:
    plain = OrtRunner(package, SessionChoice(threads=2))
    assert judged(plain, 2, 0).tobytes() != judged(plain, 1, 0).tobytes()


def same_in_company(runner: OrtRunner, tokenizer: Phi4Tokenizer, media: Pool, seeds: range) -> None:
    policy = longrope_policy("reference", runner.package.config.decoder)
    plain = EngineCore(runner, tokenizer, policy=policy)
    core = EngineCore(runner, tokenizer, policy=policy, prefix_positions=2000, encoder_tokens=400)
    for seed in seeds:
        count = 2 + seed % 8
        alone = [answers_of(plain, [work])[0] for work in mixed_works(seed, media, count)]
        for _ in range(2):  # the second time with what was kept from the first
            together = answers_of(core, mixed_works(seed, media, count))
            for left, right in zip(alone, together, strict=True):
                assert right.token_ids == left.token_ids
                assert right.logprobs == left.logprobs
    core.close()


def test_mixed_batches_equal_their_requests_alone_to_the_last_bit(
    runner: OrtRunner, tokenizer: Phi4Tokenizer, package: OnnxPackage
) -> None:
    same_in_company(runner, tokenizer, pool(package), range(12))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_mixed_batches_equal_their_requests_alone_to_the_last_bit(
    runner: OrtRunner, tokenizer: Phi4Tokenizer, package: OnnxPackage
) -> None:
    same_in_company(runner, tokenizer, pool(package), range(1000))
