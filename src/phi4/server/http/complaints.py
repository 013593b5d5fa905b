"""What is wrong with a field, in words of our own: where it stands, what it may be, and what it is.

The schemas are checked by pydantic, whose sentences speak of validation and of Python's types and change with
its versions. Clients read ours, which are the same for every route and do not change.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import ValidationError

from phi4.server.http.errors import InvalidField

_RULES = {
    "missing": "has to be given",
    "none_required": "is not supported here; leave it out",
    "string_type": "has to be text",
    "bool_type": "has to be true or false",
    "bool_parsing": "has to be true or false",
    "int_type": "has to be a whole number",
    "int_from_float": "has to be a whole number",
    "int_parsing": "has to be a whole number",
    "int_parsing_size": "has to be a smaller number",
    "float_type": "has to be a number",
    "float_parsing": "has to be a number",
    "finite_number": "has to be a finite number",
    "list_type": "has to be a list",
    "dict_type": "has to be an object",
    "model_type": "has to be an object",
    "model_attributes_type": "has to be an object",
    "literal_error": "has to be one of {expected}",
    "greater_than": "has to be more than {gt}",
    "greater_than_equal": "has to be at least {ge}",
    "less_than": "has to be less than {lt}",
    "less_than_equal": "has to be at most {le}",
    "string_too_short": "has to have {min_length} or more characters",
    "string_too_long": "has to have {max_length} or fewer characters",
    "too_short": "has to have {min_length} or more entries",
    "too_long": "has to have {max_length} or fewer entries",
}
"""Kind of an error -> what the value has to be, with the numbers of its context."""
_OTHER = "has a value that cannot be used"
_WITHOUT_VALUE = ("missing", "none_required")
_SHOWN_CHARS = 40
_QUOTED = re.compile(r"'([^']*)'")


def field_error(error: ValidationError) -> InvalidField:
    """The first complaint of a validation as our error."""
    first = error.errors(include_url=False)[0]
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"]).lstrip(".")
    kind, context = first["type"], first.get("ctx", {})
    if kind == "value_error":
        return InvalidField(where or "body", str(context["error"]))  # a check of our own says it all
    rule = _RULES.get(kind, _OTHER).format(**{name: _said(value) for name, value in context.items()})
    return InvalidField(
        where or "body", rule if kind in _WITHOUT_VALUE else f"{rule}, not {_is(kind, first)}"
    )


def _said(value: Any) -> str:
    """A number, or the choices there are, as a sentence has them."""
    if isinstance(value, float):
        return f"{value:g}"
    choices = _QUOTED.findall(value) if isinstance(value, str) else ()
    return ", ".join(choices) or str(value)


def _is(kind: str, complaint: Any) -> str:
    """What a value is instead: its length where that is wrong, else itself."""
    value = complaint["input"]
    if kind.endswith(("_short", "_long")):
        return str(len(value))
    return shown_value(value)


def shown_value(value: Any) -> str:
    """A JSON value, short; of what holds others only the kind."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    text = json.dumps(value if not isinstance(value, str) else value[:_SHOWN_CHARS], ensure_ascii=False)
    is_cut = isinstance(value, str) and len(value) > _SHOWN_CHARS
    return text if len(text) <= 2 * _SHOWN_CHARS and not is_cut else f"{text[: 2 * _SHOWN_CHARS]}..."
