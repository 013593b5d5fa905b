"""The body of `/v1/chat/completions`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from phi4.server.http.errors import InvalidField
from phi4.server.http.schemas.fields import (
    MAX_CHOICES,
    Name,
    Sampling,
    Seconds,
    StreamOptions,
    Tokens,
    TopLogprobs,
    Truncation,
    refuse_fields,
)
from phi4.server.http.schemas.messages import Messages, checked_messages
from phi4.server.http.schemas.tools import ResponseFormat, ToolChoice, Tools, checked_tools
from phi4.server.worker.values import GenerateOptions, PrepareRequest


class ChatRequest(Sampling):
    """OpenAI's body, and what other servers and ours add.

    Of ours: `truncation` ("auto" leaves out the oldest turns of a conversation that is too long),
    `stop_repetition` (False lets an answer repeat itself for ever), `timeout_s` (a shorter deadline).
    """

    messages: Messages
    model: Name | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    max_completion_tokens: Tokens | None = None
    max_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    truncation: Truncation | None = None
    stop_repetition: bool | None = None
    timeout_s: Seconds | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    verbosity: str | None = None
    reasoning_effort: str | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    functions: list[Any] | None = None
    function_call: Any = None
    web_search_options: dict[str, Any] | None = None

    @property
    def limit(self) -> int | None:
        """Longest answer in tokens; None = the default."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def num_top(self) -> int | None:
        """Best candidates to report with each token; None = no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def prepare(self, adapter: str) -> PrepareRequest:
        """The prompt for the preparer.

        Args:
            adapter: Registered name of the user's adapter the model's name stands for; empty = none.

        Raises:
            InvalidField: A message, a tool or a combination of fields is wrong.
        """
        self._check()
        return PrepareRequest(
            "chat",
            messages=tuple(checked_messages(self.messages)),
            tools=checked_tools(self.tools or ()),
            tool_choice=self.tool_choice or "auto",
            parallel_tool_calls=self.parallel_tool_calls is not False,
            response_format=self.response_format.as_asked() if self.response_format else None,
            adapter=adapter,
            overflow="drop_oldest" if self.truncation == "auto" else "error",
            max_new_tokens=self.limit,
        )

    def options(self, salt: str) -> GenerateOptions:
        """How it is answered.

        Args:
            salt: Whose caches may be used.
        """
        return GenerateOptions(
            sampling=self.params(self.num_top),
            max_new_tokens=self.limit,
            n=self.n or 1,
            salt=salt,
            loop_guard=self.stop_repetition is not False,
            timeout_s=self.timeout_s,
        )

    def _check(self) -> None:
        refuse_fields([("functions", self.functions), ("function_call", self.function_call)], "give tools")
        spoken = [("audio", self.audio), ("modalities", set(self.modalities or ()) - {"text"})]
        refuse_fields(spoken, "answers are text")
        refuse_fields([("web_search_options", self.web_search_options)], "the server fetches nothing")
        if self.top_logprobs and not self.logprobs:
            raise InvalidField("top_logprobs", "needs logprobs to be true")
        if self.stream_options is not None and not self.stream:
            raise InvalidField("stream_options", "needs stream to be true")
        if self.tool_choice not in (None, "none", "auto") and not self.tools:
            raise InvalidField("tool_choice", "needs tools to choose from")
