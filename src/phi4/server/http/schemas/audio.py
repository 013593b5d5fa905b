"""The form of `/v1/audio/transcriptions` and `/v1/audio/translations`: text fields beside one file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from phi4.processing.prompts import AUDIO_LANGUAGES, language_name
from phi4.server.http.complaints import field_error
from phi4.server.http.errors import InvalidField
from phi4.server.http.form import Form
from phi4.server.http.schemas.fields import Name, Seconds, Temperature, refuse_fields
from phi4.server.worker.values import GenerateOptions, PrepareRequest
from phi4.types import SamplingParams

AudioFormat = Literal["json", "text", "srt", "verbose_json", "vtt"]
TIMED: tuple[AudioFormat, ...] = ("srt", "vtt", "verbose_json")
"""Formats that show when something was said."""
MAX_PROMPT_CHARS = 4096
DEFAULT_TARGET = "English"
"""OpenAI's translations are to English."""
LANGUAGES = ["", *AUDIO_LANGUAGES, *AUDIO_LANGUAGES.values()]
"""Codes and names that a form may give; nothing is the same as leaving the field out."""
Language = Annotated[str, Field(max_length=64), WithJsonSchema({"type": "string", "enum": LANGUAGES})]


class AudioForm(BaseModel):
    """OpenAI's fields; `target_language` (translations) and `timeout_s` are ours.

    A form knows only text, so numbers and truth values are read from it here, unlike in JSON bodies.
    `language` is checked and changes nothing: the trained instruction to write down has no place for it.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, protected_namespaces=())

    model: Name | None = None
    language: Language | None = None
    prompt: Annotated[str, Field(max_length=MAX_PROMPT_CHARS)] | None = None
    response_format: AudioFormat = "json"
    temperature: Temperature | None = None
    timestamp_granularities: list[Literal["word", "segment"]] = []
    include: list[Annotated[str, Field(max_length=64)]] = []
    stream: bool = False
    chunking_strategy: str | None = None
    target_language: Language | None = None
    timeout_s: Seconds | None = None

    @property
    def with_logprobs(self) -> bool:
        """Whether the log-probabilities of the tokens are wanted."""
        return "logprobs" in self.include

    def target(self) -> str:
        """English name of the language to translate to.

        Raises:
            InvalidRequest: The model knows none of that name.
        """
        return language_name(self.target_language or DEFAULT_TARGET, "target_language")

    def prepare(self, audio: bytes, translate_to: str, adapter: str) -> PrepareRequest:
        """The recording for the preparer.

        Args:
            audio: The file.
            translate_to: Language to translate to; empty = write down what is said.
            adapter: As `ChatRequest.prepare`.

        Raises:
            InvalidField: A combination of fields is wrong.
            InvalidRequest: `language` is none that the model hears.
        """
        if self.language:
            language_name(self.language)
        words = [name for name in self.timestamp_granularities if name == "word"]
        refuse_fields([("timestamp_granularities", words)], "times are known of segments, not of words")
        if self.with_logprobs and self.response_format != "json":
            raise InvalidField("include", "logprobs need the response_format json")
        if self.stream and self.response_format not in ("json", "text"):
            raise InvalidField("stream", "needs the response_format json or text")
        return PrepareRequest(
            "transcribe",
            audio=audio,
            translate_to=translate_to,
            hot_words=self.prompt or "",
            timestamps=self.response_format in TIMED,
            adapter=adapter,
        )

    def options(self, salt: str) -> GenerateOptions:
        """How it is answered; see `ChatRequest.options`."""
        sampling = SamplingParams(
            temperature=self.temperature or 0.0, logprobs=0 if self.with_logprobs else None
        )
        return GenerateOptions(sampling=sampling, salt=salt, timeout_s=self.timeout_s)


def checked_form(form: Form) -> tuple[AudioForm, bytes]:
    """The fields and the file of a form; names of lists may end in `[]`, as OpenAI's clients write them.

    Raises:
        InvalidField: The file is missing, or a field is wrong or there twice.
    """
    found: dict[str, Any] = {}
    for given, value in form.fields:
        name = given.removesuffix("[]")
        if name in ("timestamp_granularities", "include"):
            found.setdefault(name, []).append(value)
        elif name in found:
            raise InvalidField(name[:64], "is there twice; give it once")
        else:
            found[name] = value
    if [name for name, _ in form.files] != ["file"]:
        raise InvalidField("file", "is missing; send the recording as a file of this name")
    try:
        return AudioForm.model_validate(found), form.files[0][1]
    except ValidationError as error:
        raise field_error(error) from None
