"""Which adapter and which audio projector a row uses, from the media it holds.

Adapter choice is data carried by a row, for prefill and every decode step; weights are never swapped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

AudioProjector = Literal["speech", "vision"]


@dataclass(frozen=True)
class Route:
    """Ordered adapters of a row (the modality's first, then the user's own) and its audio projector."""

    adapters: tuple[str, ...]
    audio_projector: AudioProjector


def route(has_image: bool, has_audio: bool, user_adapter: str | None = None) -> Route:
    """Choose adapters and projector.

    Args:
        has_image: The row holds at least one picture; wins over audio.
        has_audio: The row holds at least one recording.
        user_adapter: The user's own adapter, added after the modality's; the sum of both deltas acts.

    Source: the modes of `modeling_phi4mm.py` of the released model. Text alone runs on the base weights.
    """
    modality: tuple[str, ...] = ("vision",) if has_image else ("speech",) if has_audio else ()
    own = () if user_adapter is None else (user_adapter,)
    return Route(adapters=modality + own, audio_projector="vision" if has_image else "speech")
