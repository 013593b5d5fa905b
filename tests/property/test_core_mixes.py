"""Property: random requests of every kind say together what each says alone, whatever the runner can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4.engine.core import EngineCore
from phi4.engine.longrope import longrope_policy
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.testing.mixes import Pool, answers_of, mixed_works, outcome
from phi4.testing.scripted import ScriptedRunner, babbling
from phi4.testing.tiny import tiny_config, write_tiny_tokenizer
from phi4.types import AudioArrays, ImageArrays

VOCAB = 320
PIXELS, PATCHES = np.zeros((1, 3, 2, 2), np.float32), np.ones((1, 1, 1), np.bool_)
POLICIES = st.sampled_from(["reference", "pin", "short"])
POOL = Pool(
    VOCAB,
    images=tuple(ImageArrays(PIXELS, PATCHES, (2, 2), size, f"p{size}") for size in (3, 7)),
    audios=tuple(AudioArrays(np.zeros((8, 80), np.float32), size, 0.1, f"v{size}") for size in (1, 5)),
)
LONGEST = 24 + 7 + 5 + 13
"""Positions of the longest sequence: text, a picture, a recording, the answer."""
MACHINES = st.fixed_dictionaries(
    {
        "max_rows": st.integers(1, 6),
        "max_step_tokens": st.integers(1, 30),
        "mixes_adapters": st.booleans(),
        "mixes_prefill_decode": st.booleans(),
        "verifies_drafts_in_batch": st.booleans(),
        "capacity_tokens": st.one_of(st.none(), st.integers(LONGEST, 3 * LONGEST)),
    }
)
ENGINES = st.fixed_dictionaries(
    {
        "speculate": st.booleans(),
        "prefix_positions": st.sampled_from([0, 40, 400]),
        "encoder_tokens": st.sampled_from([0, 8, 100]),
        "cache_positions": st.one_of(st.none(), st.integers(LONGEST, 3 * LONGEST)),
        "prefix_block": st.sampled_from([1, 4, 7]),
    }
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Phi4Tokenizer:
    directory: Path = tmp_path_factory.mktemp("tokenizer")
    return write_tiny_tokenizer(directory, vocab_size=VOCAB)


def engine(
    tokenizer: Phi4Tokenizer, policy: Any, options: dict[str, Any], **abilities: Any
) -> tuple[EngineCore, ScriptedRunner]:
    runner = ScriptedRunner(babbling(VOCAB), VOCAB, **abilities)
    chosen = longrope_policy(policy, tiny_config(original_max=16, max_positions=64).decoder)
    return EngineCore(runner, tokenizer, policy=chosen, **options), runner


def company_changes_nothing(
    tokenizer: Phi4Tokenizer, seed: int, count: int, policy: str, options: Any, machine: Any
) -> None:
    plain, _ = engine(tokenizer, policy, {"speculate": False})
    alone = [outcome(answers_of(plain, [work])[0]) for work in mixed_works(seed, POOL, count)]
    core, runner = engine(tokenizer, policy, options, **machine)
    for _ in range(2):  # the second time with what was kept from the first
        found = [outcome(answer) for answer in answers_of(core, mixed_works(seed, POOL, count))]
        assert found == alone
    stats = core.stats()
    assert (stats.running, stats.waiting) == (0, 0) and runner.num_open == stats.kept
    core.close()
    assert (runner.num_open, runner.num_handles) == (0, 0)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 7), POLICIES, ENGINES, MACHINES)
def test_every_answer_equals_the_answer_alone(
    tokenizer: Phi4Tokenizer, seed: int, count: int, policy: str, options: Any, machine: Any
) -> None:
    company_changes_nothing(tokenizer, seed, count, policy, options, machine)


@pytest.mark.slow
@settings(max_examples=1000)
@given(st.integers(0, 2**32), st.integers(2, 9), POLICIES, ENGINES, MACHINES)
def test_a_thousand_mixed_batches_equal_their_requests_alone(
    tokenizer: Phi4Tokenizer, seed: int, count: int, policy: str, options: Any, machine: Any
) -> None:
    company_changes_nothing(tokenizer, seed, count, policy, options, machine)


def test_three_hundred_cancellations_at_random_moments_free_everything_at_once(
    tokenizer: Phi4Tokenizer,
) -> None:
    random = np.random.default_rng(5)
    options = {"prefix_positions": 0, "encoder_tokens": 0}
    core, runner = engine(tokenizer, "reference", options, max_rows=4, max_step_tokens=9, capacity_tokens=150)
    live: list[int] = []
    for number in range(300):
        live.append(core.submit(mixed_works(number, POOL, 1)[0]))
        for _ in range(int(random.integers(6))):
            ended = {event.id for event in core.step() if event.ended}
            live = [waiting for waiting in live if waiting not in ended]
        if live:
            core.cancel(live.pop(int(random.integers(len(live)))))
        stats = core.stats()
        assert stats.running + stats.waiting == len(live) and runner.num_open == stats.running
    for number in live:
        core.cancel(number)
    assert (runner.num_open, runner.num_handles, core.stats().cache_usage) == (0, 0, 0.0)
