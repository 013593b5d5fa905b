"""Controls: the same sample with its medium taken away, exchanged, or its adapter switched off.

A score on pictures or speech means little alone: grammar, frequent answers and guessing may carry
it. Each control removes one source of knowledge and leaves the rest of the prompt as it was. Blank
pictures and silence keep size and length, so token counts stay equal; a wrong medium brings its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from PIL import Image

from phi4.evals.samples import Sample
from phi4.processing.audio import load_audio
from phi4.processing.images import load_image
from phi4.shapes import AnyArray
from phi4.types import (
    AudioArrays,
    AudioPart,
    AudioSource,
    ImageArrays,
    ImagePart,
    ImageSource,
    Part,
)

Kind = Literal["image", "audio"]


@dataclass(frozen=True)
class Control:
    """One way to run all samples of a task.

    Attributes:
        name: Shown in the report: "blind", "wrong medium", "adapter off", or with the medium it touches.
        title: What it means, in words.
        apply: Samples of the task -> samples to run, in the same order.
        adapters: Adapter tuple to run with; None = chosen by the media of the row.
        removes_medium: True = counts as blind: the score must stay well above it.
    """

    name: str
    title: str
    apply: Callable[[Sequence[Sample]], list[Sample]]
    adapters: tuple[str, ...] | None = None
    removes_medium: bool = False


def controls_for(kinds: Sequence[Kind]) -> tuple[Control, ...]:
    """Controls of a task whose samples hold these media; none for text."""
    if not kinds:
        return ()
    several = len(kinds) > 1
    found = [_blind(kind, several) for kind in kinds] + [_wrong(kind, several) for kind in kinds]
    off = Control("adapter off", "the modality's LoRA is switched off", lambda samples: list(samples), ())
    return (*found, off)


def blank_image(source: ImageSource) -> AnyArray:
    """White pixels `[H, W, 3]` uint8, of the picture's size."""
    assert not isinstance(source, ImageArrays), "controls need the picture itself, not its tiles"
    if isinstance(source, np.ndarray):
        height_px, width_px = source.shape[:2]
    else:
        width_px, height_px = (source if isinstance(source, Image.Image) else load_image(source)).size
    return np.full((height_px, width_px, 3), 255, np.uint8)


def silence(source: AudioSource) -> AnyArray:
    """Zeros `[S]` float32, as long as the recording is at 16 kHz."""
    assert not isinstance(source, AudioArrays), "controls need the recording itself, not its features"
    samples = source if isinstance(source, np.ndarray) else load_audio(source)
    return np.zeros(len(samples), np.float32)


def media_of(sample: Sample, kind: Kind) -> list[Any]:
    """Sources of one kind in a sample, in order."""
    wanted = ImagePart if kind == "image" else AudioPart
    return [part.source for message in sample.messages for part in message.parts if isinstance(part, wanted)]


def with_media(sample: Sample, kind: Kind, sources: Sequence[Any]) -> Sample:
    """The sample with its media of one kind replaced, in order; other parts stay.

    A sample with fewer media than `sources` takes the first ones; one with more uses the last again.
    """
    fresh = iter((*sources, *[sources[-1]] * len(media_of(sample, kind))))
    wanted = ImagePart if kind == "image" else AudioPart

    def exchanged(part: Part) -> Part:
        return replace(part, source=next(fresh)) if isinstance(part, wanted) else part

    messages = tuple(replace(m, parts=tuple(exchanged(p) for p in m.parts)) for m in sample.messages)
    return replace(sample, messages=messages)


def _blind(kind: Kind, several: bool) -> Control:
    remove: Callable[[Any], AnyArray] = blank_image if kind == "image" else silence
    title = "white" if kind == "image" else "silent"

    def apply(samples: Sequence[Sample]) -> list[Sample]:
        return [with_media(s, kind, [remove(source) for source in media_of(s, kind)]) for s in samples]

    name = f"blind ({kind})" if several else "blind"
    return Control(name, f"{kind} replaced by a {title} one of the same size", apply, removes_medium=True)


def _wrong(kind: Kind, several: bool) -> Control:
    def apply(samples: Sequence[Sample]) -> list[Sample]:
        return [
            with_media(s, kind, media_of(samples[_other(samples, i)], kind)) for i, s in enumerate(samples)
        ]

    name = f"wrong {kind}" if several else "wrong medium"
    return Control(name, f"{kind} of another sample", apply)


def _other(samples: Sequence[Sample], index: int) -> int:
    """The next sample, going round, whose right answer differs; itself when all answers are equal."""
    for step in range(1, len(samples)):
        candidate = (index + step) % len(samples)
        if samples[candidate].expected != samples[index].expected:
            return candidate
    return index
