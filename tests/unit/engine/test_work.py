"""What is refused before it may wait: whatever could break a step that others share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from phi4.engine.runner import RunnerInfo
from phi4.engine.work import Work, check_work
from phi4.errors import ContextOverflow, InvalidRequest
from phi4.testing.scripted import ScriptedRunner, babbling
from phi4.types import MediaSpan, ModelInputs, SamplingParams


@pytest.fixture
def info() -> RunnerInfo:
    return ScriptedRunner(babbling(320), 320, max_context_tokens=20).info


def test_a_work_that_fits_exactly_passes(info: RunnerInfo, text: Callable[..., ModelInputs]) -> None:
    check_work(Work(text(4), SamplingParams(max_new_tokens=16)), info)
    check_work(Work(text(4), targets=tuple(range(16))), info)


def test_prompt_and_answer_beyond_the_context_are_refused(
    info: RunnerInfo, text: Callable[..., ModelInputs]
) -> None:
    with pytest.raises(ContextOverflow, match=r"context of 20; .* at most 16 new tokens"):
        check_work(Work(text(4), SamplingParams(max_new_tokens=17)), info)
    with pytest.raises(ContextOverflow, match="at most 0 new tokens"):
        check_work(Work(text(21), targets=(1,)), info)


@pytest.mark.parametrize("token", [-1, 320, 2**40])
def test_ids_outside_the_vocabulary_are_refused(info: RunnerInfo, token: int) -> None:
    with pytest.raises(InvalidRequest, match=f"the token {token} is not in the vocabulary"):
        check_work(Work(ModelInputs(np.array([1, token]))), info)
    with pytest.raises(InvalidRequest, match="not in the vocabulary"):
        check_work(Work(ModelInputs(np.array([1])), targets=(token,)), info)


@pytest.mark.parametrize("params", [{"temperature": 9.0}, {"logit_bias": {320: 1.0}}, {"stop": "END"}])
def test_parameters_are_checked_against_this_runner(info: RunnerInfo, params: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(params))):
        check_work(Work(ModelInputs(np.array([1])), SamplingParams(**params)), info)


def test_works_that_make_no_sense_are_refused(info: RunnerInfo) -> None:
    with pytest.raises(InvalidRequest, match="nothing to judge"):
        check_work(Work(ModelInputs(np.array([1])), targets=()), info)
    with pytest.raises(InvalidRequest, match="stands twice"):
        check_work(Work(ModelInputs(np.array([1])), adapters=("vision", "vision")), info)
    with pytest.raises(InvalidRequest, match="the prompt is empty"):
        check_work(Work(ModelInputs(np.zeros(0, np.int64))), info)


@pytest.mark.parametrize(
    "spans",
    [
        (MediaSpan("image", 0, 1, 4),),
        (MediaSpan("image", 0, 1, 4), MediaSpan("audio", 0, 4, 2)),
        (MediaSpan("image", 0, 1, 4), MediaSpan("audio", 0, 9, 2)),
        (MediaSpan("image", 0, 1, 3), MediaSpan("audio", 0, 6, 2)),
        (MediaSpan("image", 0, 1, 4), MediaSpan("audio", 1, 6, 2)),
        (MediaSpan("image", 0, 1, 4), MediaSpan("image", 0, 6, 4)),
        (MediaSpan("image", 0, -1, 4), MediaSpan("audio", 0, 6, 2)),
        (MediaSpan("video", 0, 1, 4), MediaSpan("audio", 0, 6, 2)),  # type: ignore[arg-type]
    ],
    ids=["left out", "overlap", "beyond the end", "cut", "unknown", "twice", "before the beginning", "kind"],
)
def test_media_at_impossible_places_are_refused(
    info: RunnerInfo, shown: Callable[..., ModelInputs], spans: tuple[MediaSpan, ...]
) -> None:
    sampling = SamplingParams(max_new_tokens=2)
    check_work(Work(shown(), sampling), info)
    with pytest.raises(InvalidRequest, match="let a processor prepare it"):
        check_work(Work(replace(shown(), spans=spans), sampling), info)
