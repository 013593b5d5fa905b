"""Checks of single config values, each refusing with field, value and what is valid.

Used by the dataclasses of this folder in `__post_init__`, so a config built by hand, by a recipe or
from a file passes the same checks. Bounds are generous: they only stop values that would make a
later step allocate without limit.
"""

from __future__ import annotations

import math
from typing import Any, NoReturn

from phi4.errors import InvalidConfig

MAX_WIDTH = 1 << 20
"""Upper bound of one dimension of a weight; the released vocabulary has 200,064 rows."""
MAX_LAYERS = 1024
MAX_POSITIONS = 1 << 30
_SHOWN_CHARS = 120


def refuse(field: str, value: object, valid: str) -> NoReturn:
    """Raise the one error of this room.

    Args:
        field: Name as the config spells it.
        value: What stands there.
        valid: What would be accepted, as the end of the sentence "must be ...".

    Raises:
        InvalidConfig: Always.
    """
    shown = repr(value)
    if len(shown) > _SHOWN_CHARS:
        shown = shown[:_SHOWN_CHARS] + "..."
    raise InvalidConfig(f"{field} = {shown}: must be {valid}")


def whole(field: str, value: Any, low: int = 1, high: int = MAX_WIDTH) -> int:
    """Return `value` when it is an int (no bool, no float) in [low, high]; refuse it otherwise."""
    if isinstance(value, bool) or not isinstance(value, int):
        refuse(field, value, f"a whole number from {low} to {high}")
    if not low <= value <= high:
        refuse(field, value, f"from {low} to {high}")
    return value


def number(field: str, value: Any, low: float, high: float) -> float:
    """Return `value` as a finite float in [low, high]; refuse NaN, infinities, bools and strings."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(field, value, f"a number from {low:g} to {high:g}")
    if not math.isfinite(value) or not low <= value <= high:
        refuse(field, value, f"a finite number from {low:g} to {high:g}")
    return float(value)


def flag(field: str, value: Any) -> bool:
    """Return `value` when it is a bool; refuse 0, 1 and strings."""
    if not isinstance(value, bool):
        refuse(field, value, "true or false")
    return value


def divides(field: str, value: int, whole_field: str, total: int) -> None:
    """Refuse a `value` (> 0) that does not divide `total`."""
    if total % value:
        choices = [d for d in range(1, min(total, 128) + 1) if total % d == 0]
        refuse(field, value, f"a divisor of {whole_field} = {total}, one of {choices}")


def factors(field: str, value: Any, length: int) -> tuple[float, ...]:
    """Return a LongRoPE factor list as a tuple of `length` positive finite floats; refuse others."""
    if not isinstance(value, list | tuple):
        refuse(field, value, f"a list of {length} numbers")
    if len(value) != length:
        refuse(
            field,
            f"list of {len(value)}",
            f"a list of {length} numbers, head_dim * partial_rotary_factor / 2",
        )
    return tuple(number(f"{field}[{i}]", item, 1e-6, 1e6) for i, item in enumerate(value))
