"""LongRoPE policies: which factors a sequence's cache is made with, and when it must be made anew.

Each policy answers one question, `regime(length, final_length)`; the scheduler reopens a sequence
whose answer changes. Nothing cheaper is exact: keys and values above the first layer already depend
on the factors, so caching un-rotated keys would not help.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from phi4.configs.decoder import DecoderConfig
from phi4.configs.rope import ROPE_POLICIES, Regime, RopePolicy, regime_for
from phi4.errors import InvalidRequest


class LongRopePolicy(Protocol):
    """Chooses the regime of a sequence."""

    def regime(self, length: int, final_length: int) -> Regime:
        """Factors for a sequence that holds `length` tokens now and at most `final_length` at its end."""
        ...


@dataclass(frozen=True)
class ReferencePolicy:
    """By the current length, as the reference implementation: crossing the boundary costs a full prefill."""

    config: DecoderConfig

    def regime(self, length: int, final_length: int) -> Regime:
        return regime_for(self.config, length, "reference")


@dataclass(frozen=True)
class PinPolicy:
    """Once, from prompt plus longest answer: never crosses, differs from the reference below the boundary."""

    config: DecoderConfig

    def regime(self, length: int, final_length: int) -> Regime:
        return regime_for(self.config, final_length, "pin")


@dataclass(frozen=True)
class ShortPolicy:
    """Always short factors: never crosses, degrades beyond the boundary."""

    config: DecoderConfig

    def regime(self, length: int, final_length: int) -> Regime:
        return regime_for(self.config, length, "short")


def check_rope_policy(name: str) -> None:
    """Refuse a policy that does not exist.

    Raises:
        InvalidRequest: There is none of that name.
    """
    if name not in ROPE_POLICIES:
        raise InvalidRequest(f"rope_policy = {name!r}: must be one of {list(ROPE_POLICIES)}")


def longrope_policy(name: RopePolicy, config: DecoderConfig) -> LongRopePolicy:
    """The policy called `name`.

    Raises:
        InvalidRequest: There is none of that name.
    """
    check_rope_policy(name)
    policies: dict[RopePolicy, type[ReferencePolicy] | type[PinPolicy] | type[ShortPolicy]] = {
        "reference": ReferencePolicy,
        "pin": PinPolicy,
        "short": ShortPolicy,
    }
    return policies[name](config)
