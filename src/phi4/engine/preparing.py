"""Prompts to rows, as a generator asks for them: with the choices made when the model was loaded.

How closely pictures are looked at, where media stand in their message and who judges what is speech are the
same for every request of a loaded model: `phi4.load` takes them, a request does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, get_args

from phi4.configs import Phi4Config
from phi4.errors import InvalidRequest
from phi4.processing.chat import Placement
from phi4.processing.media import MediaLimits
from phi4.processing.processor import Processor
from phi4.processing.recordings import HeardPart, cut_recording
from phi4.processing.speech_segments import SpeechSettings
from phi4.processing.speech_signs import DEFAULT_JUDGE, SpeechJudge
from phi4.types import AudioSource, Message, ModelInputs, ToolSpec


class Prepares(Protocol):
    """What a generator asks of a processor."""

    @property
    def config(self) -> Phi4Config:
        """The model's config; its decoder decides LongRoPE, its adapters the routing."""
        ...

    def prepare(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> ModelInputs:
        """Turn a conversation into one row."""
        ...

    def plain(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The conversation with its videos and files read, for who prepares parts of it several times."""
        ...

    def hear(
        self,
        source: AudioSource,
        *,
        timestamps: bool = False,
        skip_silence: bool = True,
        settings: SpeechSettings | None = None,
    ) -> tuple[tuple[HeardPart, ...], float]:
        """The parts of a recording, none = nobody speaks, and the length of the whole in seconds."""
        ...


@dataclass(frozen=True)
class LoadedProcessor:
    """The processor of a loaded model.

    Attributes:
        processor: Does the work.
        max_crops: Local crops a picture may use, fewer = fewer tokens; None = the config's.
        placement: Where media stand in their message, see `ChatRenderer.render`.
        judge: Says which frames of a recording sound like speech.

    Raises:
        InvalidRequest: `max_crops` is more than the model's config allows.
    """

    processor: Processor
    max_crops: int | None = None
    placement: Placement = "inline"
    judge: SpeechJudge = DEFAULT_JUDGE

    def __post_init__(self) -> None:
        vision = self.config.vision
        if vision is not None and self.max_crops is not None and self.max_crops > vision.max_crops:
            raise InvalidRequest(
                f"max_crops is {self.max_crops}: this model takes 1 to {vision.max_crops}; give one of these"
            )

    @property
    def config(self) -> Phi4Config:
        """The model's config."""
        return self.processor.config

    def prepare(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> ModelInputs:
        """Turn a conversation into one row; see `Processor.prepare`."""
        return self.processor.prepare(messages, tools, self.max_crops, self.placement)

    def plain(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The conversation with its videos and files read; see `Processor.plain`."""
        return self.processor.plain(messages)

    def hear(
        self,
        source: AudioSource,
        *,
        timestamps: bool = False,
        skip_silence: bool = True,
        settings: SpeechSettings | None = None,
    ) -> tuple[tuple[HeardPart, ...], float]:
        """The parts of a recording and the length of the whole in seconds; see `cut_recording`.

        Raises:
            InvalidRequest: As `Processor.hear`; or the judge needs the sound and got features.
            InvalidMedia: As `Processor.hear`.
            MissingExtra: The same.
        """
        recording, samples = self.processor.hear(source)
        speech = self.config.speech
        assert speech is not None, "a model that takes no recordings has refused this one"
        parts = cut_recording(
            recording,
            speech,
            timestamps=timestamps,
            skip_silence=skip_silence,
            settings=settings,
            judge=self.judge,
            samples=samples,
        )
        return parts, recording.duration_s


def check_choices(max_crops: int | None, placement: Placement, limits: MediaLimits) -> None:
    """Refuse choices that no model could have, before any file of one is looked for.

    Raises:
        InvalidRequest: Names the choice, its value and what is valid.
    """
    if max_crops is not None and (type(max_crops) is not int or max_crops < 1):
        raise InvalidRequest(
            f"max_crops is {max_crops!r}: give a whole number from 1 up, or leave it out for the model's own"
        )
    if placement not in get_args(Placement):
        valid = " and ".join(map(repr, get_args(Placement)))
        raise InvalidRequest(f"placement is {placement!r}; valid are {valid}")
    if not isinstance(limits, MediaLimits):
        raise InvalidRequest(f"limits is {limits!r}; give a phi4.processing.media.MediaLimits")
