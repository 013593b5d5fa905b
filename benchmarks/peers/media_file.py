"""One prompt with a picture and a recording as a file of arrays, so that everybody reads the same numbers.

Numpy only: it is written with phi4 (`write_media.py`) and read where phi4 is not installed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Media:
    """The prompt, prepared.

    Attributes:
        token_ids: `[T]` int64, placeholders expanded.
        pixels: `[C, 3, crop, crop]` float32, the global view first.
        patch_mask: `[C, g, g]`, True = the patch shows picture.
        size_px: Height and width of the padded picture.
        features: `[A, M]` float32 log-mel.
        image_span: First place of the picture in `token_ids`, and how many places it takes.
        audio_span: The same of the recording.
        prepare_s: Seconds phi4 took to make these arrays of decoded pixels and samples.
    """

    token_ids: np.ndarray
    pixels: np.ndarray
    patch_mask: np.ndarray
    size_px: np.ndarray
    features: np.ndarray
    image_span: np.ndarray
    audio_span: np.ndarray
    prepare_s: np.ndarray

    @property
    def image_id(self) -> int:
        """The token that stands at places of the picture."""
        return int(self.token_ids[self.image_span[0]])

    @property
    def audio_id(self) -> int:
        """The token that stands at places of the recording."""
        return int(self.token_ids[self.audio_span[0]])


def write_media(path: Path, media: Media) -> None:
    """Write a `.npz` file."""
    with path.open("wb") as file:
        np.savez(file, **asdict(media))


def read_media(path: str) -> Media:
    """Read what `write_media` wrote."""
    with np.load(path) as arrays:
        return Media(**{name: arrays[name] for name in arrays.files})
