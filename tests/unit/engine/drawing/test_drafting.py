"""Guesses come from what followed the same tokens before, grow when right and rest when wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from phi4.engine.drawing.drafting import FIRST_GUESS, MOST_GUESSED, REST_TOKENS, UNKNOWN, PromptLookup
from phi4.engine.generator import Generator
from phi4.engine.request import Request
from phi4.engine.runner import SequenceSpec
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.testing.scripted import Logits, ScriptedRunner
from phi4.testing.tiny import tiny_config, write_tiny_tokenizer
from phi4.types import Completion, ModelInputs, SamplingParams

VOCAB = 320
TEXT = [20, 21, 22, 23, 24, 25, 26, 27]


def test_what_followed_the_last_tokens_before_is_guessed() -> None:
    lookup = PromptLookup([*TEXT, 99, 20, 21])
    assert lookup.guess(8) == tuple(TEXT[2 : 2 + FIRST_GUESS])
    assert lookup.guess(2) == (22, 23)


def test_new_tokens_are_not_guessed_about() -> None:
    assert PromptLookup([1, 2, 3, 4, 5]).guess(8) == ()
    assert PromptLookup([7]).guess(8) == () and PromptLookup([]).guess(8) == ()


def test_the_latest_occurrence_and_the_longest_run_win() -> None:
    assert PromptLookup([1, 2, 30, 9, 1, 2, 40, 9, 1, 2]).guess(1) == (40,)
    assert PromptLookup([5, 6, 1, 2, 30, 7, 8, 1, 2, 40, 5, 6, 1, 2]).guess(1) == (30,)


def test_nothing_is_guessed_through_a_picture() -> None:
    lookup = PromptLookup([1, 2, 3, UNKNOWN, UNKNOWN, 4, 1, 2])
    assert lookup.guess(8) == (3,)
    assert PromptLookup([1, UNKNOWN, UNKNOWN, 5, UNKNOWN, UNKNOWN]).guess(8) == ()


def test_right_guesses_make_the_next_longer_and_wrong_ones_a_rest() -> None:
    lookup = PromptLookup([*range(50), 99, 0, 1])
    lengths = []
    for _ in range(4):
        lengths.append(len(lookup.guess(100)))
        lookup.judged(lengths[-1], lengths[-1])
    assert lengths == [FIRST_GUESS, 8, MOST_GUESSED, MOST_GUESSED]
    lookup.judged(MOST_GUESSED, 0)
    for token in range(2, 2 + REST_TOKENS - 1):
        assert lookup.guess(8) == ()
        lookup.push(token)
    assert lookup.guess(8) == ()
    lookup.push(2 + REST_TOKENS - 1)
    assert len(lookup.guess(8)) == FIRST_GUESS
    lookup.judged(8, 6)
    assert len(lookup.guess(8)) == 7


def reading_aloud(prompt: Sequence[int], slips: Sequence[int] = ()) -> Logits:
    """Logits that say the prompt again and again, but for a slip at some positions; both regimes differ."""

    def logits(spec: SequenceSpec, history: Sequence[int]) -> Any:
        row = np.zeros(VOCAB, np.float32)
        place = len(history)
        said = prompt[place % len(prompt)] + (40 if spec.regime == "long" else 0)
        row[200 + place % 50 if place in slips else said] = 4.0
        row[250] = 2.0
        return row

    return logits


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Phi4Tokenizer:
    directory: Path = tmp_path_factory.mktemp("tokenizer")
    return write_tiny_tokenizer(directory, vocab_size=VOCAB)


def run(
    tokenizer: Phi4Tokenizer, logits: Logits, requests: list[Request], speculate: bool, **abilities: Any
) -> tuple[list[Completion], ScriptedRunner]:
    runner = ScriptedRunner(logits, VOCAB, **abilities)
    processor: Any = SimpleNamespace(config=tiny_config(original_max=32, max_positions=128))
    generator = Generator(runner, processor, tokenizer, speculate=speculate)
    return generator.generate(requests), runner


def request(length: int = 8, answer: int = 40, temperature: float = 0.0, seed: int = 1) -> Request:
    ids = np.array([TEXT[i % len(TEXT)] for i in range(length)])
    sampling = SamplingParams(temperature, seed=seed, max_new_tokens=answer)
    return Request(inputs=ModelInputs(ids), sampling=sampling)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("slips", [(), (14, 15, 22)])
@pytest.mark.parametrize(
    "abilities",
    [
        {},
        {"verifies_drafts_in_batch": False, "mixes_prefill_decode": False},
        {"mixes_prefill_decode": False},
        {"max_step_tokens": 9},
        {"max_step_tokens": 2},
    ],
)
def test_answers_are_those_without_guessing(
    tokenizer: Phi4Tokenizer, temperature: float, slips: tuple[int, ...], abilities: dict[str, Any]
) -> None:
    """Over the LongRoPE boundary at 32 too, alone and in company, for every kind of runner."""
    logits = reading_aloud(TEXT, slips)
    for asked in ([request(temperature=temperature)], [request(8 + n, 30, temperature, n) for n in range(3)]):
        plain, _ = run(tokenizer, logits, asked, False, **abilities)
        quick, runner = run(tokenizer, logits, asked, True, **abilities)
        assert [done.token_ids for done in quick] == [done.token_ids for done in plain]
        assert [done.text for done in quick] == [done.text for done in plain]
        assert (runner.num_open, {done.timing.drafted for done in plain}) == (0, {0})


def test_copying_takes_a_fraction_of_the_steps_and_says_so(tokenizer: Phi4Tokenizer) -> None:
    logits, asked = reading_aloud(TEXT), [request(16, 15)]
    _, plain = run(tokenizer, logits, asked, False)
    (done,), quick = run(tokenizer, logits, asked, True)
    assert len(plain.plans) == 15 and len(quick.plans) <= 5
    assert done.timing.accepted == 15 - len(quick.plans) <= done.timing.drafted


def test_no_guess_lies_beyond_a_change_of_regime_or_the_longest_answer(tokenizer: Phi4Tokenizer) -> None:
    _, runner = run(tokenizer, reading_aloud(TEXT), [request(24, 30)], True)
    fed = 0
    for plan in runner.plans:
        (row,) = plan.rows
        fed = row.num_positions if row.num_positions > 17 else fed + row.num_positions
        assert not (fed > 32 >= fed - len(row.drafts) and row.drafts), "a guess across the boundary"


def test_an_answer_that_stops_inside_its_guesses_ends_there(tokenizer: Phi4Tokenizer) -> None:
    asked = Request(
        inputs=request(16).inputs, sampling=SamplingParams(max_new_tokens=15, stop=(tokenizer.decode([23]),))
    )
    (plain,), _ = run(tokenizer, reading_aloud(TEXT), [asked], False)
    (quick,), _ = run(tokenizer, reading_aloud(TEXT), [asked], True)
    assert (quick.text, quick.token_ids, quick.finish_reason) == (
        plain.text,
        plain.token_ids,
        plain.finish_reason,
    )
    assert quick.finish_reason == "stop"
