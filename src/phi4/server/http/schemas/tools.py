"""Tools, the choice among them, and the form an answer must have: checked in shape, handed on as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from phi4.server.http.errors import InvalidField
from phi4.server.http.schemas.fields import Body

MAX_TOOLS = 128
CHOICES = ("none", "auto", "required")
_KEPT = ("name", "description", "parameters", "strict")


class ResponseFormat(Body):
    """What an answer must look like.

    OpenAI's three types, and three of ours, each with a field of the same name: `regex`, `grammar` (Lark) and
    `choice` (a list of texts).
    """

    type: Literal["text", "json_object", "json_schema", "regex", "grammar", "choice"]
    json_schema: dict[str, Any] | None = None
    regex: str | None = None
    grammar: str | None = None
    choice: list[str] | None = None

    def as_asked(self) -> dict[str, Any] | None:
        """The same for the preparer; None = any text will do.

        Raises:
            InvalidField: The field that belongs to the type is missing or broken.
        """
        if self.type == "text":
            return None
        if self.type == "json_object":
            return {"type": self.type}
        value = getattr(self, self.type)
        if not value:
            raise InvalidField(f"response_format.{self.type}", f"has to be given with the type {self.type!r}")
        if self.type == "json_schema":
            if not isinstance(value.get("schema"), dict):
                raise InvalidField("response_format.json_schema.schema", "has to be a JSON schema")
            _check_strict(value, "response_format.json_schema")
        return {"type": self.type, self.type: value}


def _tool_choice(value: Any) -> Any:
    if isinstance(value, str) and value in CHOICES:
        return value
    if isinstance(value, dict) and value.get("type") == "function":
        function = value.get("function", value)
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            return {"type": "function", "function": {"name": function["name"]}}
    raise ValueError(f"has to be one of {', '.join(CHOICES)}, or an object that names one function")


ToolChoice = Annotated[
    Any,
    AfterValidator(_tool_choice),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "enum": list(CHOICES)},
                {"type": "object", "required": ["type"], "properties": {"type": {"const": "function"}}},
            ]
        }
    ),
]
Tools = Annotated[
    list[dict[str, Any]],
    Field(max_length=MAX_TOOLS),
    WithJsonSchema(
        {
            "type": "array",
            "maxItems": MAX_TOOLS,
            "items": {
                "type": "object",
                "required": ["type"],
                "properties": {"type": {"const": "function"}, "function": {"type": "object"}},
            },
        }
    ),
]


def checked_tools(tools: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Tools in the nested form of chat completions, whichever form they came in.

    Raises:
        InvalidField: One is no function, has no name, or is `strict` in no known way.
    """
    return tuple(_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools))


def _tool(tool: dict[str, Any], where: str) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise InvalidField(f"{where}.type", "has to be 'function'; tools of the server's own are not offered")
    function = tool.get("function", tool)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InvalidField(f"{where}.function.name", "has to be text")
    _check_strict(function, f"{where}.function")
    # In the order the caller gave, which is the order the model is shown.
    kept = {name: value for name, value in function.items() if name in _KEPT and value is not None}
    return {"type": "function", "function": kept}


def _check_strict(value: dict[str, Any], where: str) -> None:
    if not isinstance(value.get("strict"), bool | None):
        raise InvalidField(f"{where}.strict", "has to be true or false")
