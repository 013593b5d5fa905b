"""The body of `/tokenize`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from phi4.server.http.errors import InvalidField
from phi4.server.http.schemas.fields import Asked, Name
from phi4.server.http.schemas.messages import Messages, checked_messages
from phi4.server.http.schemas.tools import Tools, checked_tools
from phi4.server.worker.values import PrepareRequest


class TokenizeRequest(Asked):
    """A prompt or a conversation whose tokens are wanted, as vLLM's route takes them."""

    model: Name | None = None
    prompt: Annotated[str, Field(max_length=2**24)] | None = None
    messages: Messages | None = None
    tools: Tools | None = None

    def prepare(self, adapter: str) -> PrepareRequest:
        """The request for the preparer.

        Raises:
            InvalidField: Neither or both of prompt and messages, or one is wrong.
        """
        if (self.prompt is None) == (self.messages is None):
            raise InvalidField("prompt", "give either a prompt or messages")
        if self.messages is None:
            return PrepareRequest("tokenize", prompts=(self.prompt or "",), adapter=adapter)
        return PrepareRequest(
            "tokenize",
            messages=tuple(checked_messages(self.messages)),
            tools=checked_tools(self.tools or ()),
            adapter=adapter,
        )
