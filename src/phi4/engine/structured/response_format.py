"""`response_format` of a request, as the form of its answer.

    response_grammar({"type": "json_schema", "json_schema": {"schema": {...}, "strict": True}})

Types "text", "json_object" and "json_schema" are OpenAI's; "regex", "choice" and "grammar" are ours beside
them. Unknown fields are ignored, as OpenAI does; unknown types are not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from phi4.engine.structured.spec import GrammarSpec
from phi4.errors import InvalidRequest

_TYPES = ("text", "json_object", "json_schema", "regex", "choice", "grammar")


def response_grammar(value: Mapping[str, Any] | None) -> GrammarSpec | None:
    """The form an answer has to have; None = any text.

    Args:
        value: `{"type": "text" | "json_object"}`; `{"type": "json_schema", "json_schema": {"schema": {...},
            "strict": bool}}`, where the inner two may also stand beside `type`; `{"type": "regex", "regex":
            ...}`; `{"type": "choice", "choice": [...]}`; `{"type": "grammar", "grammar": ...}`, Lark. Without
            `strict` keywords of a schema that cannot be enforced are passed over.

    Raises:
        InvalidRequest: Another type, or a field is missing or of another kind.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping) or value.get("type") not in _TYPES:
        shown = value.get("type") if isinstance(value, Mapping) else value
        raise InvalidRequest(f"response_format type is {str(shown)[:80]!r}; valid are {', '.join(_TYPES)}")
    kind = value["type"]
    if kind == "text":
        return None
    if kind == "json_object":
        return GrammarSpec("json_object")
    if kind == "json_schema":
        return _schema(value)
    if kind == "choice":
        return GrammarSpec("choice", _dumped(_field(value, "choice", list), "choice"))
    text = _field(value, "regex" if kind == "regex" else "grammar", str)
    return GrammarSpec("regex" if kind == "regex" else "lark", text)


def _schema(value: Mapping[str, Any]) -> GrammarSpec:
    inner = value.get("json_schema", value)
    if not isinstance(inner, Mapping):
        raise InvalidRequest("response_format.json_schema must be an object with the field 'schema'")
    schema = _field(inner, "schema", Mapping)
    return GrammarSpec("json_schema", _dumped(schema, "schema"), strict=inner.get("strict") is True)


def _field(value: Mapping[str, Any], name: str, kind: type) -> Any:
    found = value.get(name)
    if not isinstance(found, kind):
        raise InvalidRequest(
            f"response_format.{name} is {'missing' if found is None else type(found).__name__}; "
            f"give {'an object' if kind is Mapping else 'a list' if kind is list else 'text'}"
        )
    return found


def _dumped(value: Any, name: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"response_format.{name} is no JSON ({str(error)[:120]}); correct it") from None
