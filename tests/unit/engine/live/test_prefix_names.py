"""Names of beginnings: equal where caches are equal, different where anything is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from phi4.engine.live.prefix_names import PrefixNames, root_name
from phi4.types import MediaSpan, ModelInputs

ROOT = root_name("", (), "speech", "short")


def names(inputs: ModelInputs, tokens: list[int] | None = None, root: bytes = ROOT) -> list[bytes]:
    return PrefixNames(root, inputs, 4).names(tokens or [], 10**6)


def test_only_whole_blocks_have_names(text: Callable[..., ModelInputs]) -> None:
    assert [len(names(text(length))) for length in (1, 3, 4, 7, 8)] == [0, 0, 1, 1, 2]


def test_equal_beginnings_have_equal_names_up_to_the_first_difference(
    text: Callable[..., ModelInputs],
) -> None:
    one = text(16)
    other = ModelInputs(one.token_ids.copy())
    other.token_ids[9] += 1
    left, right = names(one), names(other)
    assert left[:2] == right[:2]
    assert not set(left[2:]) & set(right[2:])


def test_a_block_at_another_place_has_another_name() -> None:
    assert len(set(names(ModelInputs(np.zeros(40, np.int64))))) == 10


def test_what_is_drawn_goes_on_like_a_prompt(text: Callable[..., ModelInputs]) -> None:
    whole = text(19)
    ids = whole.token_ids.tolist()
    growing = PrefixNames(ROOT, ModelInputs(whole.token_ids[:6]), 4)
    tokens: list[int] = []
    for length in range(6, 20):
        assert growing.names(tokens, length) == names(whole)[: length // 4]
        assert growing.names(tokens, 10**6) == names(whole)[: length // 4], "what is not known has no name"
        tokens += ids[length : length + 1]


def test_every_condition_of_a_cache_is_in_its_name() -> None:
    roots = [
        root_name(salt, adapters, projector, regime)
        for salt in ("", "a", "('a'")
        for adapters in ((), ("vision",), ("vision", "mine"), ("mine", "vision"), ("visionmine",))
        for projector in ("speech", "vision")
        for regime in ("short", "long")
    ]
    assert len(set(roots)) == len(roots)


@pytest.mark.parametrize(
    "change",
    [
        lambda row: replace(row, images=(replace(row.images[0], digest="other"),)),
        lambda row: replace(row, audios=(replace(row.audios[0], digest="other"),)),
        lambda row: replace(row, images=(replace(row.images[0], num_tokens=5),)),
        lambda row: replace(row, spans=(replace(row.spans[0], start=2), row.spans[1])),
        lambda row: ModelInputs(row.token_ids),
    ],
    ids=["picture", "recording", "size", "place", "none"],
)
def test_media_count_by_content_size_and_place(
    shown: Callable[..., ModelInputs], change: Callable[[ModelInputs], ModelInputs]
) -> None:
    assert names(shown(length=12))[-1] != names(change(shown(length=12)))[-1]


def test_placeholder_ids_do_not_count(shown: Callable[..., ModelInputs]) -> None:
    row, other = shown(length=12), shown(length=12)
    other.token_ids[1:5] = 77
    assert names(row) == names(other)


def test_a_picture_longer_than_a_block_names_every_block_it_touches(
    shown: Callable[..., ModelInputs],
) -> None:
    def long(digest: str) -> ModelInputs:
        row = shown(digest, length=24)
        picture = replace(row.images[0], num_tokens=17)
        return ModelInputs(row.token_ids, (picture,), (), (MediaSpan("image", 0, 1, 17),))

    assert not set(names(long("one"))) & set(names(long("two")))
    two = replace(long("one"), spans=(MediaSpan("image", 0, 2, 17),))
    assert not set(names(long("one"))) & set(names(two))
