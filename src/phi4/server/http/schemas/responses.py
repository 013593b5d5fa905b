"""The body of `/v1/responses`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from phi4.server.http.errors import InvalidField
from phi4.server.http.schemas.fields import (
    LEAST_TOP_P,
    Asked,
    Body,
    Name,
    Probability,
    Seconds,
    Temperature,
    Tokens,
    TopLogprobs,
    Truncation,
    refuse_fields,
)
from phi4.server.http.schemas.items import Find, resolved, to_messages
from phi4.server.http.schemas.messages import MAX_MESSAGES, checked_messages
from phi4.server.http.schemas.tools import ResponseFormat, ToolChoice, Tools, checked_tools
from phi4.server.worker.values import GenerateOptions, PrepareRequest
from phi4.types import SamplingParams

WITH_LOGPROBS = "message.output_text.logprobs"


def _input(value: Any) -> Any:
    items = isinstance(value, list) and all(isinstance(item, dict) for item in value)
    if not value or not (items or isinstance(value, str)):
        raise ValueError("has to be text or a list of items, and not empty")
    return value


Input = Annotated[
    Any,
    AfterValidator(_input),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "minItems": 1, "maxItems": MAX_MESSAGES, "items": {"type": "object"}},
            ]
        }
    ),
]


class TextFormat(Body):
    """What an answer must look like, flat where chat completions nest it."""

    type: Literal["text", "json_object", "json_schema", "regex", "grammar", "choice"]
    name: str | None = None
    description: str | None = None
    strict: bool | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    regex: str | None = None
    grammar: str | None = None
    choice: list[str] | None = None

    def as_asked(self) -> dict[str, Any] | None:
        """The same for the preparer; None = any text will do.

        Raises:
            InvalidField: The field that belongs to the type is missing.
        """
        schema = {"name": self.name, "schema": self.schema_, "strict": self.strict}
        return ResponseFormat(
            type=self.type,
            json_schema=None if self.schema_ is None else schema,
            regex=self.regex,
            grammar=self.grammar,
            choice=self.choice,
        ).as_asked()


class TextConfig(Body):
    """Of the text that comes out."""

    format: TextFormat | None = None
    verbosity: str | None = None


class ResponsesRequest(Asked):
    """OpenAI's body; `stop_repetition`, `seed` and `timeout_s` are ours, as in chat completions."""

    input: Input
    model: Name | None = None
    instructions: str | None = None
    max_output_tokens: Tokens | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_logprobs: TopLogprobs | None = None
    include: list[str] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    text: TextConfig | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    truncation: Truncation | None = None
    previous_response_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    store: bool | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stop_repetition: bool | None = None
    timeout_s: Seconds | None = None
    background: bool | None = None
    conversation: Any = None
    prompt: Any = None
    max_tool_calls: int | None = None
    reasoning: dict[str, Any] | None = None
    service_tier: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @property
    def num_top(self) -> int | None:
        """Best candidates to report with each token; None = no log-probabilities."""
        return (self.top_logprobs or 0) if WITH_LOGPROBS in (self.include or ()) else None

    def items(self, find: Find) -> list[dict[str, Any]]:
        """The input as items; see `resolved`."""
        return resolved(self.input, find)

    def messages(self, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The input as messages, without instructions and without what went before.

        Args:
            items: What `items` gave.

        Raises:
            InvalidField: An item is wrong.
        """
        return checked_messages(to_messages(items), "input")

    def prepare(self, messages: list[dict[str, Any]], adapter: str) -> PrepareRequest:
        """The prompt for the preparer.

        Args:
            messages: All turns: what went before and `messages()`.
            adapter: As `ChatRequest.prepare`.

        Raises:
            InvalidField: A combination of fields is wrong.
        """
        self._check()
        system = [{"role": "system", "content": self.instructions}] if self.instructions else []
        form = self.text.format if self.text else None
        return PrepareRequest(
            "chat",
            messages=(*system, *messages),
            tools=checked_tools(self.tools or ()),
            tool_choice=self.tool_choice or "auto",
            parallel_tool_calls=self.parallel_tool_calls is not False,
            response_format=form.as_asked() if form else None,
            adapter=adapter,
            overflow="drop_oldest" if self.truncation == "auto" else "error",
            max_new_tokens=self.max_output_tokens,
        )

    def options(self, salt: str) -> GenerateOptions:
        """How it is answered; see `ChatRequest.options`."""
        sampling = SamplingParams(
            temperature=self.temperature or 0.0,
            top_p=1.0 if self.top_p is None else max(LEAST_TOP_P, self.top_p),
            seed=None if self.seed is None else self.seed % 2**64,
            logprobs=self.num_top,
        )
        return GenerateOptions(
            sampling=sampling,
            max_new_tokens=self.max_output_tokens,
            salt=salt,
            loop_guard=self.stop_repetition is not False,
            timeout_s=self.timeout_s,
        )

    def _check(self) -> None:
        refuse_fields([("background", self.background)], "stay connected, or stream")
        refuse_fields(
            [("conversation", self.conversation)], "give previous_response_id or the turns themselves"
        )
        refuse_fields([("prompt", self.prompt)], "no templates are kept; give instructions")
        if self.tool_choice not in (None, "none", "auto") and not self.tools:
            raise InvalidField("tool_choice", "needs tools to choose from")
