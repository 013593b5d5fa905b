"""What of a schema the compiler cannot do, taken out of it, where a request did not ask for `strict`.

Most keywords it does not know the compiler passes over by itself. This is about those it stumbles over:
patterns with look-around or back references, and objects that require a property which they do not let in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from phi4.engine.structured.schema_edit import edited

MAX_PATTERNS = 200
"""Different patterns that are tried; what lies beyond is kept, and fails as it did."""


def without_impossible(
    schema: dict[str, Any], works: Callable[[str], bool]
) -> tuple[dict[str, Any], Counter[str]]:
    """A schema that asks for less, and how often which keyword was passed over.

    Args:
        schema: Of checked size.
        works: Whether the compiler can do a pattern; asked once about each.
    """
    passed: Counter[str] = Counter()
    tried: dict[str, bool] = {}

    def can(pattern: Any) -> bool:
        if not isinstance(pattern, str):
            return True
        if pattern not in tried and len(tried) < MAX_PATTERNS:
            tried[pattern] = works(pattern)
        return tried.get(pattern, True)

    def edit(entry: dict[str, Any]) -> dict[str, Any]:
        if not can(entry.get("pattern")):
            del entry["pattern"]
            passed["pattern"] += 1
        names = entry.get("patternProperties")
        if isinstance(names, dict) and not all(map(can, names)):
            # Which names these would have been is not known, so other names have to be let in as well.
            del entry["patternProperties"]
            entry.pop("additionalProperties", None)
            passed["patternProperties"] += 1
        elif entry.get("additionalProperties") is False and not names:
            wider = with_required(entry)
            passed["additionalProperties"] += wider != entry
            return wider
        return entry

    loose = edited(schema, edit)
    assert isinstance(loose, dict)
    return loose, +passed


def with_required(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object with all it requires among its properties; what was missing may be anything."""
    required, properties = schema.get("required"), schema.get("properties", {})
    if not isinstance(required, list | tuple) or not isinstance(properties, dict):
        return schema
    missing: dict[str, Any] = {
        name: {} for name in required if isinstance(name, str) and name not in properties
    }
    return {**schema, "properties": {**properties, **missing}} if missing else schema
