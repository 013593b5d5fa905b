"""Encoder outputs are made once for all who show the same medium, and are given back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from phi4.engine.live.encoder_cache import EncoderCache
from phi4.testing.scripted import ScriptedRunner, babbling
from phi4.types import ImageArrays, ModelInputs


@pytest.fixture
def picture(shown: Callable[..., ModelInputs]) -> Callable[[str], ImageArrays]:
    return lambda digest: shown(digest).images[0]


def make(tokens: int = 0) -> tuple[EncoderCache, ScriptedRunner]:
    runner = ScriptedRunner(babbling(50), 50)
    return EncoderCache(runner, tokens), runner


def test_the_same_picture_is_encoded_once_and_released_after_its_last_user(
    picture: Callable[[str], ImageArrays],
) -> None:
    cache, runner = make()
    first, second = (cache.acquire(picture("a"), "vision", "") for _ in range(2))
    assert first == second and runner.num_handles == 1
    cache.release(first)
    assert runner.num_handles == 1
    cache.release(second)
    assert runner.num_handles == 0
    assert (cache.queries, cache.hits) == (2, 1)


def test_content_kind_projector_and_tenant_are_told_apart(shown: Callable[..., ModelInputs]) -> None:
    cache, runner = make()
    row = shown("same", "same")
    for medium in (row.images[0], row.audios[0]):
        cache.acquire(medium, "vision", "")
    cache.acquire(row.audios[0], "speech", "")
    cache.acquire(row.audios[0], "speech", "b")
    cache.acquire(shown("same", "other").audios[0], "speech", "b")
    assert (runner.num_handles, cache.hits) == (5, 0)
    assert cache.holds(row.audios[0], "speech", "b") and not cache.holds(row.audios[0], "vision", "b")


def test_unused_outputs_are_kept_within_the_limit_the_longest_unused_going_first(
    picture: Callable[[str], ImageArrays],
) -> None:
    cache, runner = make(tokens=9)  # two pictures of 4
    handles = {name: cache.acquire(picture(name), "vision", "") for name in "abc"}
    for name in "cab":
        cache.release(handles[name])
    assert cache.unused_tokens == 8 and runner.num_handles == 2
    assert [cache.holds(picture(name), "vision", "") for name in "abc"] == [True, True, False]


def test_outputs_in_use_are_never_evicted(picture: Callable[[str], ImageArrays]) -> None:
    cache, runner = make(tokens=100)
    used = cache.acquire(picture("a"), "vision", "")
    cache.release(cache.acquire(picture("b"), "vision", ""))
    assert cache.evict_all()
    assert runner.num_handles == 1 and not cache.evict() and not cache.evict_all()
    cache.release(used)
    assert cache.holds(picture("a"), "vision", "")
