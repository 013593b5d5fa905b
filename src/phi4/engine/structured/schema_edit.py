"""JSON schemas changed in every place that is a schema itself, and in no other.

Names of properties may be called like keywords, and values (`enum`, `default`) may look like schemas: neither
is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_NAMED_SCHEMAS = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"))
_VALUES = frozenset(("const", "enum", "default", "examples"))


def edited(schema: Any, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """The schema with `edit` applied to each object in it that is a schema, innermost first.

    Args:
        schema: Of checked nesting; what is no object, and no list of some, comes back as it is.
        edit: Gets a copy of its own and returns what stands in its place.
    """
    if isinstance(schema, list | tuple):
        return [edited(entry, edit) for entry in schema]
    if not isinstance(schema, Mapping):
        return schema
    copy: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _NAMED_SCHEMAS and isinstance(value, Mapping):
            copy[key] = {name: edited(entry, edit) for name, entry in value.items()}
        else:
            copy[key] = value if key in _VALUES else edited(value, edit)
    return edit(copy)
