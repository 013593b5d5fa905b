"""Which factors each policy picks around the boundary."""

from __future__ import annotations

import pytest

from phi4.configs import PHI4_MINI
from phi4.engine.longrope import longrope_policy
from phi4.errors import InvalidRequest

CONFIG = PHI4_MINI.decoder


@pytest.mark.parametrize(("length", "regime"), [(1, "short"), (4096, "short"), (4097, "long")])
def test_reference_goes_by_the_present_length(length: int, regime: str) -> None:
    assert longrope_policy("reference", CONFIG).regime(length, 100_000) == regime


def test_pin_goes_by_the_final_length_from_the_first_token_on() -> None:
    policy = longrope_policy("pin", CONFIG)
    assert [policy.regime(length, 4096) for length in (1, 4096)] == ["short", "short"]
    assert [policy.regime(length, 4097) for length in (1, 4097)] == ["long", "long"]


def test_short_never_changes() -> None:
    assert longrope_policy("short", CONFIG).regime(100_000, 100_000) == "short"


def test_an_unknown_policy_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(InvalidRequest, match="reference"):
        longrope_policy("dynamic", CONFIG)  # type: ignore[arg-type]
