"""A damaged tokenizer file either loads and works, or ends in `InvalidArtifact`; nothing else happens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phi4.errors import InvalidArtifact
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.processing.tokenizer_build import build_tokenizer

ODD_VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    5,
    2**32 - 1,
    2**70,
    1.5,
    "",
    "x",
    "\u4f60",
    "\ud800",
    [],
    [[]],
    {},
    {"a": 1},
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = tmp_path_factory.mktemp("whole")
    build_tokenizer(["turn on the light"] * 9, 290, directory)
    return (directory / "tokenizer.json").read_bytes()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


def load_or_refuse(target: Path, content: bytes) -> None:
    (target / "tokenizer.json").write_bytes(content)
    try:
        tokenizer = Phi4Tokenizer.load(target, 4096)
    except InvalidArtifact as error:
        assert len(str(error)) < 1000
        return
    ids = tokenizer.encode_text("Turn <|end|> on, 你好!")
    assert all(0 <= token_id < 4096 for token_id in ids)
    assert tokenizer.control_ids.isdisjoint(ids)
    tokenizer.decode(ids)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), new=st.binary(max_size=3), cut=st.integers(0, 3))
def test_damaged_bytes(whole: bytes, target: Path, place: float, new: bytes, cut: int) -> None:
    start = int(place * len(whole))
    load_or_refuse(target, whole[:start] + new + whole[start + cut :])


def places(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of a document, with a few entries of each long list or table."""
    if where:
        yield where
    items = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value))
        if isinstance(value, list)
        else []
    )
    for key, inner in items[:4] + items[-1:]:
        yield from places(inner, (*where, key))


def test_odd_values_in_every_place(whole: bytes, target: Path) -> None:
    for where in dict.fromkeys(places(json.loads(whole))):
        for odd in ODD_VALUES:
            document = json.loads(whole)
            parent = document
            for key in where[:-1]:
                parent = parent[key]
            parent[where[-1]] = odd
            load_or_refuse(target, json.dumps(document).encode())
