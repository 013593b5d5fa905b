"""The body of `/v1/completions`: text to continue as it stands, without a chat template."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema

from phi4.server.http.errors import InvalidField
from phi4.server.http.schemas.fields import (
    MAX_CHOICES,
    MAX_ID,
    Name,
    Sampling,
    Seconds,
    StreamOptions,
    Tokens,
    TopLogprobs,
    refuse_fields,
)
from phi4.server.http.schemas.tools import ResponseFormat
from phi4.server.worker.values import GenerateOptions, PrepareRequest

DEFAULT_TOKENS = 16
"""OpenAI's default for this route."""
MAX_PROMPTS = 128
Prompt = str | tuple[int, ...]


def _prompts(value: Any) -> tuple[Prompt, ...]:
    """One text, one list of ids, or several of either."""
    several = value if isinstance(value, list) and not _is_ids(value) else [value]
    if not several:
        raise ValueError("is empty; give at least one prompt")
    if len(several) > MAX_PROMPTS:
        raise ValueError(f"holds {len(several)} prompts, at most {MAX_PROMPTS} are possible")
    return tuple(_prompt(item) for item in several)


def _prompt(value: Any) -> Prompt:
    if isinstance(value, str):
        return value
    if _is_ids(value):
        return tuple(value)
    raise ValueError("has to be text, a list of token ids, or a list of these")


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(i) is int and 0 <= i <= MAX_ID for i in value)


_IDS = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": MAX_ID}}
Prompts = Annotated[
    Any,
    AfterValidator(_prompts),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                _IDS,
                {"type": "array", "minItems": 1, "maxItems": MAX_PROMPTS, "items": {"type": "string"}},
                {"type": "array", "minItems": 1, "maxItems": MAX_PROMPTS, "items": _IDS},
            ]
        }
    ),
]


class CompletionRequest(Sampling):
    """OpenAI's body; `stop_repetition` and `timeout_s` are ours, as in chat completions."""

    prompt: Prompts
    model: Name | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    best_of: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: Tokens | None = None
    logprobs: TopLogprobs | None = None
    echo: bool | None = None
    response_format: ResponseFormat | None = None
    suffix: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop_repetition: bool | None = None
    timeout_s: Seconds | None = None
    user: str | None = None

    @property
    def num_choices(self) -> int:
        """Answers to each prompt."""
        return self.n or 1

    def prepare(self, adapter: str) -> PrepareRequest:
        """The prompts for the preparer; see `ChatRequest.prepare`."""
        self._check()
        form = self.response_format.as_asked() if self.response_format else None
        return PrepareRequest("completion", prompts=self.prompt, response_format=form, adapter=adapter)

    def options(self, salt: str) -> GenerateOptions:
        """How they are answered; see `ChatRequest.options`."""
        return GenerateOptions(
            sampling=self.params(self.logprobs),
            max_new_tokens=self.max_tokens or DEFAULT_TOKENS,
            n=self.num_choices,
            salt=salt,
            loop_guard=self.stop_repetition is not False,
            timeout_s=self.timeout_s,
        )

    def _check(self) -> None:
        refuse_fields([("suffix", self.suffix)], "the models only continue a text")
        if self.best_of not in (None, self.num_choices):
            raise InvalidField("best_of", "has to equal n: every answer that is made is sent")
        if self.echo and not all(isinstance(prompt, str) for prompt in self.prompt):
            raise InvalidField("echo", "needs prompts that are text")
        if self.echo and self.logprobs is not None:
            raise InvalidField("echo", "goes without logprobs: those of a prompt are not computed")
        if self.stream_options is not None and not self.stream:
            raise InvalidField("stream_options", "needs stream to be true")
