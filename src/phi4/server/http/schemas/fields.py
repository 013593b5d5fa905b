"""What bodies share: the strict model they derive from, ranges of numbers, and how tokens are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from phi4.server.http.errors import InvalidField
from phi4.types import SamplingParams

MAX_CHOICES = 128
MAX_TOKENS = 2**24
MAX_TOP_LOGPROBS = 20
MAX_STOPS = 16
MAX_STOP_CHARS = 1024
MAX_BIASES = 1024
MAX_ID = 2**31 - 1
LEAST_TOP_P = 1e-6
"""What `top_p` 0 means: only the likeliest token."""


class Body(BaseModel):
    """A JSON body: no type is turned into another, numbers are finite, unknown fields are dropped."""

    model_config = ConfigDict(
        strict=True, extra="ignore", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )


def _one_or_several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _biases(value: Any) -> Any:
    """Keys of a JSON object are text; these stand for token ids."""
    if not isinstance(value, dict):
        return value
    if len(value) > MAX_BIASES:
        raise ValueError(f"has {len(value)} entries, at most {MAX_BIASES} are possible")
    for key in value:
        if not (key.isascii() and key.isdigit() and len(key) <= 10 and int(key) <= MAX_ID):
            raise ValueError("has a key that is no token id; keys are whole numbers as text")
    return value


Temperature = Annotated[float, Field(ge=0.0, le=2.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Penalty = Annotated[float, Field(ge=-2.0, le=2.0)]
Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
TopLogprobs = Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)]
Seconds = Annotated[float, Field(ge=1.0, le=86_400.0)]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Truncation = Literal["auto", "disabled"]
"""What happens to a conversation that is too long: its oldest turns are left out, or it is refused."""
Stops = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]],
    Field(max_length=MAX_STOPS),
    BeforeValidator(_one_or_several),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1, "maxLength": MAX_STOP_CHARS},
                {
                    "type": "array",
                    "maxItems": MAX_STOPS,
                    "items": {"type": "string", "minLength": 1, "maxLength": MAX_STOP_CHARS},
                },
            ]
        }
    ),
]
Biases = Annotated[
    dict[str, Annotated[float, Field(ge=-100.0, le=100.0)]],
    BeforeValidator(_biases),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": MAX_BIASES,
            "propertyNames": {"pattern": "^[0-9]{1,9}$"},
            "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
        }
    ),
]
Objects = Annotated[list[dict[str, Any]], Field(max_length=4096)]
"""A list of JSON objects whose inside is checked elsewhere."""


class Asked(Body):
    """The body of a request: prompts are rendered with the model's own template and no other."""

    chat_template: None = None
    chat_template_kwargs: None = None


class Sampling(Asked):
    """How tokens are drawn, as chat completions and completions say it.

    `top_k`, `min_p` and `repetition_penalty` are named as other servers name them. Without a temperature the
    likeliest token is taken each time, which is what the released models do.
    """

    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Field(ge=-1, le=MAX_ID)] | None = None
    min_p: Probability | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0.0, le=2.0)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    logit_bias: Biases | None = None
    stop: Stops | None = None

    def params(self, logprobs: int | None) -> SamplingParams:
        """The same for the engine.

        Args:
            logprobs: Best candidates to report with each token; None = no log-probabilities at all.
        """
        bias = self.logit_bias or {}
        return SamplingParams(
            temperature=self.temperature or 0.0,
            top_k=max(0, self.top_k or 0),
            top_p=1.0 if self.top_p is None else max(LEAST_TOP_P, self.top_p),
            min_p=self.min_p or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            seed=None if self.seed is None else self.seed % 2**64,
            logit_bias={int(key): value for key, value in bias.items()},
            logprobs=logprobs,
            stop=tuple(self.stop or ()),
        )


class StreamOptions(Body):
    """What a stream says beside the answer."""

    include_usage: bool | None = None


def refuse_fields(given: Sequence[tuple[str, Any]], why: str) -> None:
    """Refuse fields that would change what an answer means and cannot be done here.

    Args:
        given: Name and value of each; None, False and empty values are not meant.
        why: What to do in place.

    Raises:
        InvalidField: One of them has a value.
    """
    for name, value in given:
        if value:
            raise InvalidField(name, f"is not supported here; {why}")
