"""Options of a server and what is refused among them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from phi4.errors import InvalidRequest
from phi4.server.settings import BOUNDS, ServerSettings

DIGEST = "ab" * 32


def test_defaults_are_local_bounded_and_without_remote_fetching() -> None:
    settings = ServerSettings()
    assert settings.host == "127.0.0.1" and settings.is_local and not settings.allow_remote
    unbounded = {"cache_bytes", "max_crops", "max_prompt_tokens", "max_new_tokens"}
    for name in BOUNDS:
        assert (getattr(settings, name) is None) == (name in unbounded), name


def test_every_number_has_bounds() -> None:
    numbers = [f.name for f in fields(ServerSettings) if str(f.type).startswith(("int", "float"))]
    assert set(numbers) == set(BOUNDS)


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_numbers_outside_their_bounds_are_refused_by_name(name: str) -> None:
    low, high = BOUNDS[name]
    for wrong in (low - 1, high + 1, "5", True, float("nan"), float("inf")):
        with pytest.raises(InvalidRequest, match=name):
            ServerSettings(**{name: wrong})


def test_every_default_lies_within_its_bounds() -> None:
    for name, (low, high) in BOUNDS.items():
        value: Any = getattr(ServerSettings(), name)
        assert value is None or low <= value <= high


def test_other_machines_need_a_key_or_an_explicit_word() -> None:
    with pytest.raises(InvalidRequest, match="--api-key"):
        ServerSettings(host="0.0.0.0")
    assert not ServerSettings(host="0.0.0.0", key_digests=(DIGEST,)).is_local
    assert not ServerSettings(host="0.0.0.0", open_to_all=True).is_local


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_loopback_is_local(host: str) -> None:
    assert ServerSettings(host=host).is_local


def test_a_key_in_place_of_its_digest_is_refused_and_not_shown() -> None:
    with pytest.raises(InvalidRequest) as refused:
        ServerSettings(key_digests=("my-secret-key",))
    assert "my-secret-key" not in str(refused.value)


def test_host_names_are_the_loopback_ones_the_address_listened_at_and_those_added() -> None:
    assert ServerSettings().hosts == ("localhost", "127.0.0.1", "[::1]")
    assert ServerSettings(host="10.0.0.7", key_digests=(DIGEST,)).hosts[-1] == "10.0.0.7"
    assert ServerSettings(host="fd00::7", key_digests=(DIGEST,)).hosts[-1] == "[fd00::7]"
    assert ServerSettings(allowed_hosts=("phi.example",)).hosts == (
        "localhost",
        "127.0.0.1",
        "[::1]",
        "phi.example",
    )


def test_two_adapters_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="own name"):
        ServerSettings(adapters=(("a", "x"), ("a", "y")))
