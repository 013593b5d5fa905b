"""Dotted paths into nested JSON objects: read one, set one.

The tables of `spelling.py` name keys this way ("audio_processor.config.num_blocks"), so that one row
serves reading and writing. A key that is absent differs from one that is null. Lists have no paths, and
keys with a dot cannot be named: released configs have neither where we look.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from phi4.configs.fields import refuse


class _Absent:
    """Marks a key that is not there (None is a value in JSON)."""


ABSENT: Final = _Absent()


def read_path(raw: Mapping[str, Any], path: str) -> Any:
    """Value at `path` or `ABSENT`.

    Raises:
        InvalidConfig: A step of the path holds something that is not an object.
    """
    value: Any = raw
    walked = ""
    for step in path.split("."):
        if value is None and walked:
            return ABSENT
        if not isinstance(value, Mapping):
            refuse(walked, value, "an object")
        value = value.get(step, ABSENT)
        if value is ABSENT:
            return ABSENT
        walked = f"{walked}.{step}" if walked else step
    return value


def write_path(raw: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at `path`, making objects on the way."""
    *steps, last = path.split(".")
    for step in steps:
        inner = raw.get(step)
        if not isinstance(inner, dict):
            inner = raw[step] = {}
        raw = inner
    raw[last] = value


def same_value(one: Any, other: Any) -> bool:
    """Equal as config values: 1 == 1.0 and [a] == (a,), but False is not 0."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same_value, one, other))
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    return bool(one == other)
