"""Pictures and recordings to decoder vectors, through the encoder graphs of a package.

    encoders = Encoders(open_session, config.vision, config.speech)
    features = encoders.encode(image)  # [n, D]

A graph is opened when it is first needed. Crops, frames and windows go through in groups of bounded size,
which changes nothing but the peak memory: attention never leaves a crop or a window, and the front of
the speech encoder looks back less than eight frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from phi4.configs import SpeechConfig, VisionConfig
from phi4.configs.patches import position_ids, seen_patches, token_index
from phi4.configs.routing import AudioProjector
from phi4.errors import InvalidRequest
from phi4.shapes import AnyArray, FloatArray, IntArray
from phi4.types import AudioArrays, ImageArrays

PATCHES_AT_ONCE = 4096
"""Patches that go through the tower in one call (four crops and 200 MB of activations at full size)."""
PIECE_FRAMES = 2_000
"""Frames of a long recording that are subsampled at once (20 s; 200 MB at full size); a multiple of eight."""
WINDOWS_AT_ONCE = 4
"""Windows of a long recording that go through the blocks in one call (160 s)."""


class Session(Protocol):
    """What is needed of an `onnxruntime.InferenceSession`."""

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, AnyArray]
    ) -> Sequence[AnyArray]:
        """Outputs of the graph, all of them for None."""


class Encoders:
    """The encoders of one package.

    Args:
        open_session: Opens the graph of a name ("vision", "subsampling", "speech"); called once each, when
            the graph is first needed.
        vision: Sizes of the tower; None = the package has none.
        speech: Sizes of the speech encoder; None = the package has none.
    """

    def __init__(
        self,
        open_session: Callable[[str], Session],
        vision: VisionConfig | None,
        speech: SpeechConfig | None,
    ) -> None:
        self._open = open_session
        self._sessions: dict[str, Session] = {}
        self._vision = vision
        self._speech = speech

    def encode(self, media: ImageArrays | AudioArrays, projector: AudioProjector = "speech") -> FloatArray:
        """Vectors of one medium, in the order of its tokens: `[n, D]` float32.

        Args:
            media: A picture or a recording.
            projector: Of a recording: "vision" when its prompt also holds pictures.

        Raises:
            InvalidRequest: The package has no encoder for it.
        """
        if isinstance(media, ImageArrays):
            return self._encode_image(media)
        return self._encode_audio(media, projector)

    def _encode_image(self, image: ImageArrays) -> FloatArray:
        if self._vision is None:
            raise InvalidRequest("the prompt holds a picture but this package has no vision part")
        crop = self._vision.crop_size
        index, _ = token_index(image.patch_mask, [(image.size_px[0] // crop, image.size_px[1] // crop)])
        ids, seen = position_ids(image.patch_mask), seen_patches(image.patch_mask)
        num_crops, at_once = len(image.pixels), max(1, PATCHES_AT_ONCE // self._vision.grid**2)
        pieces, places = [], []
        for first in range(0, num_crops, at_once):
            group = slice(first, min(first + at_once, num_crops))
            tokens, local = _tokens_of(group, index, num_crops, self._vision.pooled_grid**2)
            pixels = np.asarray(image.pixels[group], np.float32)
            feed: dict[str, AnyArray] = {"pixels": pixels, "index": local}
            pieces.append(self._run("vision", {**feed, "position_ids": ids[group], "seen": seen[group]}))
            places.append(tokens)
        features = np.concatenate(pieces)
        ordered = np.empty_like(features)
        ordered[np.concatenate(places)] = features
        return ordered

    def _encode_audio(self, audio: AudioArrays, projector: AudioProjector) -> FloatArray:
        if self._speech is None:
            raise InvalidRequest("the prompt holds a recording but this package has no speech part")
        vectors = self._subsample(audio.features, self._speech.time_reduction)  # [1, n, E]
        count, size = vectors.shape[1:]
        # A longer recording is cut; the zeros behind its end are attended to, as in the released model.
        window = min(count, self._speech.max_window_tokens)
        vectors = np.pad(vectors, ((0, 0), (0, -count % window), (0, 0)))
        windows = vectors.reshape(-1, window, size)
        flag, pieces = np.array(projector == "vision"), []
        for first in range(0, len(windows), WINDOWS_AT_ONCE):
            group = windows[first : first + WINDOWS_AT_ONCE]
            pieces.append(self._run("speech", {"windows": group, "vision_projector": flag}))
        return np.concatenate(pieces)[:count]

    def _subsample(self, features: FloatArray, factor: int) -> FloatArray:
        """`[A, M]` to `[1, ceil(A / factor), E]`, in pieces with the frames before each as context."""
        pieces = []
        for start in range(0, len(features), PIECE_FRAMES):
            context = factor if start else 0
            piece = np.asarray(features[None, start - context : start + PIECE_FRAMES], np.float32)
            pieces.append(self._run("subsampling", {"frames": piece})[:, context // factor :])
        return np.concatenate(pieces, axis=1)

    def _run(self, name: str, feed: Mapping[str, AnyArray]) -> FloatArray:
        if name not in self._sessions:
            self._sessions[name] = self._open(name)
        return np.asarray(self._sessions[name].run(None, feed)[0], np.float32)


def _tokens_of(
    crops: slice, index: IntArray, num_crops: int, vectors_a_crop: int
) -> tuple[IntArray, IntArray]:
    """What a group of crops gives: the places of its tokens, and their numbers within the group.

    Args:
        crops: The group.
        index: `[N]` of the whole picture, from `token_index`.
        num_crops: Crops of the picture.
        vectors_a_crop: Pooled vectors of a crop.

    Returns:
        Two arrays `[n]`. The first group also gives the separators, which belong to no crop.
    """
    start, stop = crops.start * vectors_a_crop, crops.stop * vectors_a_crop
    end = num_crops * vectors_a_crop
    local = np.where(index < end, index, index - end + stop) - start
    belongs = (index >= start) & (index < stop)
    if crops.start == 0:
        belongs |= index >= end
    return np.flatnonzero(belongs), local[belongs]
