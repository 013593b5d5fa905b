"""Property: company, limits and abilities of a runner change no answer and leak nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4.engine.generator import Generator
from phi4.engine.request import Request
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.testing.scripted import ScriptedRunner, babbling
from phi4.testing.tiny import tiny_config, write_tiny_tokenizer
from phi4.types import ModelInputs, SamplingParams

VOCAB = 320

REQUESTS = st.lists(
    st.builds(
        lambda length, seed, temperature, answer, adapters: Request(
            inputs=ModelInputs(np.random.default_rng(seed).integers(0, 256, length)),
            sampling=SamplingParams(temperature, seed=seed, max_new_tokens=answer),
            adapters=adapters,
        ),
        st.integers(1, 24),
        st.integers(0, 1000),
        st.sampled_from([0.0, 1.0]),
        st.integers(1, 12),
        st.sampled_from([(), ("vision",), ("speech",)]),
    ),
    min_size=1,
    max_size=6,
)
ABILITIES = st.fixed_dictionaries(
    {
        "max_rows": st.integers(1, 5),
        "max_step_tokens": st.integers(1, 20),
        "mixes_adapters": st.booleans(),
        "mixes_prefill_decode": st.booleans(),
        "verifies_drafts_in_batch": st.booleans(),
        "capacity_tokens": st.one_of(st.none(), st.integers(36, 80)),
    }
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Phi4Tokenizer:
    directory: Path = tmp_path_factory.mktemp("tokenizer")
    return write_tiny_tokenizer(directory, vocab_size=VOCAB)


def answers(
    tokenizer: Phi4Tokenizer, policy: Any, requests: list[Request], **abilities: Any
) -> list[tuple[int, ...]]:
    runner = ScriptedRunner(babbling(VOCAB), VOCAB, **abilities)
    processor: Any = SimpleNamespace(config=tiny_config(original_max=16, max_positions=64))
    found = Generator(runner, processor, tokenizer, rope_policy=policy).generate(requests)
    assert runner.num_open == 0
    for plan in runner.plans:
        assert sum(row.num_positions for row in plan.rows) <= runner.info.max_step_tokens
    return [done.token_ids for done in found]


@settings(max_examples=60)
@given(REQUESTS, ABILITIES, st.sampled_from(["reference", "pin", "short"]))
def test_every_answer_equals_the_answer_alone(
    tokenizer: Phi4Tokenizer, requests: list[Request], abilities: dict[str, Any], policy: str
) -> None:
    alone = [answers(tokenizer, policy, [request])[0] for request in requests]
    assert answers(tokenizer, policy, requests, **abilities) == alone
