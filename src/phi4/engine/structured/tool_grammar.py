"""Calls of tools as a grammar: which tool, with which arguments, once a call begins.

An answer is free text until the model draws `<|tool_call|>`. From there on it can only write a list of calls
in the form it was trained on, `[{"name": ..., "arguments": {...}}]`, of tools that were offered and with
arguments that fit their schemas, then `<|/tool_call|>`, then the end. Free text costs nothing: it has no
mask, so it may be guessed ahead. Calls in other dialects the parser knows (`functools[`, bare JSON) are text
while they are drawn; `fits` judges them when they are whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from phi4.engine.structured.constraint import Constraint, only
from phi4.engine.structured.spec import GrammarSpec
from phi4.errors import InvalidRequest
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.processing.tools import render_tool_calls
from phi4.shapes import BoolArray
from phi4.types import ToolCall


@dataclass(frozen=True)
class ToolRules:
    """The content of a "tool_calls" spec.

    Attributes:
        tools: Name and schema of the arguments of each tool that may be called.
        must_call: The answer begins with a call.
        several: A list may hold more than one call.
        strict: See `GrammarSpec.strict`.
        answer: Form of the answer where it is no call; None = any text.
    """

    tools: tuple[tuple[str, Mapping[str, Any]], ...]
    must_call: bool = False
    several: bool = True
    strict: bool = False
    answer: GrammarSpec | None = None

    def to_text(self) -> str:
        """As JSON.

        Raises:
            InvalidRequest: A schema holds values that are no JSON.
        """
        fields = {**vars(self), "answer": None if self.answer is None else asdict(self.answer)}
        try:
            text = json.dumps(fields, ensure_ascii=False, allow_nan=False)
            text.encode()
        except (TypeError, ValueError) as error:
            raise InvalidRequest(f"parameters of a tool are no JSON ({error}); use plain values") from None
        return text

    @classmethod
    def from_text(cls, text: str) -> ToolRules:
        """Read back what `to_text` wrote.

        Raises:
            InvalidRequest: It was not written by it.
        """
        try:
            fields = json.loads(text)
            answer = fields.pop("answer")
            tools = tuple((str(name), dict(schema)) for name, schema in fields.pop("tools"))
            return cls(tools, answer=None if answer is None else GrammarSpec(**answer), **fields)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise InvalidRequest("a tool_calls grammar is made by plan_tools; do not write one") from None

    def schema(self) -> dict[str, Any]:
        """JSON schema of the list of calls."""
        calls = [
            {
                "type": "object",
                "properties": {"name": {"const": name}, "arguments": {"$ref": f"#/$defs/{index}"}},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for index, (name, _) in enumerate(self.tools)
        ]
        return {
            "type": "array",
            "minItems": 1,
            **({} if self.several else {"maxItems": 1}),
            "items": calls[0] if len(calls) == 1 else {"anyOf": calls},
            "$defs": {str(index): schema for index, (_, schema) in enumerate(self.tools)},
        }


class ToolCallGrammar:
    """The state of one answer that may hold calls.

    `triggers` are the tokens at which a mask begins: guesses ahead must stop before one of them.

    Args:
        rules: What may be called.
        begin_calls: Starts a list of calls, compiled from `rules.schema()`.
        answer: Form of the answer where it is no call; None = any text.
        tokenizer: The model's.
        vocab_size: Entries V of a mask.

    Raises:
        InvalidRequest: The model has no tokens for calls.
    """

    def __init__(
        self,
        rules: ToolRules,
        begin_calls: Callable[[], Constraint],
        answer: Constraint | None,
        tokenizer: Phi4Tokenizer,
        vocab_size: int,
    ) -> None:
        tokens = tokenizer.tokens
        self._rules = rules
        self._begin_calls = begin_calls
        self._calls = begin_calls()
        self._answer = answer
        self._tokenizer = tokenizer
        self._begin, self._end = tokens.require("tool_call"), tokens.require("tool_call_end")
        self._stop_ids = tokens.stop_ids
        self._vocab_size = vocab_size
        self._may_call = True
        self._state = "text"
        self.triggers = frozenset((self._begin,))

    @property
    def free(self) -> bool:
        """Whether text may be anything, and so calls in other dialects; one of a given form is that form."""
        return self._answer is None

    @property
    def most_calls(self) -> int | None:
        """Calls the answer may hold; None = any number."""
        return None if self._rules.several else 1

    def fits(self, calls: Sequence[ToolCall]) -> bool:
        """Whether calls in another dialect are such as could have been written here, one list or one call.

        The grammar has arguments in the order of their schema; these may come in any, at the top.
        """
        schemas = dict(self._rules.tools)
        if not all(call.name in schemas for call in calls):
            return False
        ordered = [replace(call, arguments=_ordered(call.arguments, schemas[call.name])) for call in calls]
        return self._begin_calls().takes(self._tokenizer.encode_text(render_tool_calls(ordered)))

    @property
    def finished(self) -> bool:
        """Whether the answer is whole: only its end may follow, or has come."""
        if self._state == "text" and self._answer is not None and not self._rules.must_call:
            return self._answer.finished
        return self._state == "done"

    def allowed(self) -> BoolArray | None:
        """Tokens that may be drawn now, `[V]`; None = all.

        Raises:
            InvalidRequest: See `Constraint.allowed`.
        """
        if self._state == "done":
            return only(self._stop_ids, self._vocab_size)
        if self._state == "calls":
            mask = self._calls.allowed()
            mask[self._end] = mask[self._stop_ids[0]]
            mask[list(self._stop_ids)] = False
            return mask
        if self._rules.must_call:
            return only((self._begin,), self._vocab_size)
        if self._answer is None:
            return None
        mask = self._answer.allowed()
        mask[self._begin] = self._may_call
        return mask

    def accept(self, token_id: int) -> None:
        """The answer grew by a token that was allowed.

        Raises:
            InvalidRequest: See `Constraint.accept`.
        """
        assert self._state != "done" or token_id in self._stop_ids, "the answer has ended"
        if self._state == "calls":
            if token_id == self._end:
                self._state = "done"
            else:
                self._calls.accept(token_id)
        elif token_id == self._begin:
            self._state = "calls"
        elif token_id in self._stop_ids:
            self._state = "done"
        elif self._answer is not None:
            self._may_call = False
            self._answer.accept(token_id)


def _ordered(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties")
    names = properties if isinstance(properties, Mapping) else ()
    return {name: arguments[name] for name in names if name in arguments} | dict(arguments)
