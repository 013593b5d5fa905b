"""A prompt as bytes: what a preparer makes and the engine reads, checked on arrival like a stranger's file.

Arrays travel as (type, shape, bytes). A preparer decodes hostile media and may be captured by one; whatever
it sends then, the engine gets arrays of the types and shapes a model takes, finite numbers, and token ids
that exist, or refuses the row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from phi4.configs import Phi4Config
from phi4.engine.structured.spec import GrammarSpec
from phi4.errors import InvalidRequest
from phi4.shapes import AnyArray
from phi4.types import AudioArrays, ImageArrays, MediaSpan, ModelInputs

_TYPES = ("float32", "int64", "bool")


class Array(msgspec.Struct, frozen=True, array_like=True):
    """A numpy array."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


class Image(msgspec.Struct, frozen=True, array_like=True):
    """`ImageArrays`."""

    pixels: Array
    patch_mask: Array
    size_px: tuple[int, int]
    num_tokens: int
    digest: str


class Audio(msgspec.Struct, frozen=True, array_like=True):
    """`AudioArrays`."""

    features: Array
    num_tokens: int
    duration_s: float
    digest: str


class RowContent(msgspec.Struct, frozen=True):
    """A prompt and what belongs to it.

    Attributes:
        token_ids: `[T]` int64, placeholders expanded.
        images: In order of appearance.
        audios: The same.
        spans: Where they stand.
        tool_names: Functions the prompt offers; only under a grammar of calls is the answer searched for any.
        grammar: What the answer must look like; None = anything.
        adapter: The user's own adapter; empty = none.
    """

    token_ids: Array
    images: tuple[Image, ...] = ()
    audios: tuple[Audio, ...] = ()
    spans: tuple[MediaSpan, ...] = ()
    tool_names: tuple[str, ...] = ()
    grammar: GrammarSpec | None = None
    adapter: str = ""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(RowContent)


def pack_row(
    inputs: ModelInputs,
    *,
    tool_names: tuple[str, ...] = (),
    grammar: GrammarSpec | None = None,
    adapter: str = "",
) -> bytes:
    """A prompt as bytes."""
    content = RowContent(
        _array(inputs.token_ids, "int64"),
        tuple(
            Image(
                _array(image.pixels, "float32"),
                _array(image.patch_mask, "bool"),
                (int(image.size_px[0]), int(image.size_px[1])),
                int(image.num_tokens),
                image.digest,
            )
            for image in inputs.images
        ),
        tuple(
            Audio(
                _array(audio.features, "float32"),
                int(audio.num_tokens),
                float(audio.duration_s),
                audio.digest,
            )
            for audio in inputs.audios
        ),
        inputs.spans,
        tool_names,
        grammar,
        adapter,
    )
    return _encoder.encode(content)


def unpack_row(blob: bytes, config: Phi4Config) -> tuple[RowContent, ModelInputs]:
    """The prompt in `blob`, and what came with it.

    Raises:
        InvalidRequest: It is none that this model could take.
    """
    try:
        content = _decoder.decode(blob)
        inputs = ModelInputs(
            _numpy(content.token_ids, "int64", 1),
            tuple(_image(image) for image in content.images),
            tuple(_audio(audio) for audio in content.audios),
            content.spans,
        )
        _check(inputs, config)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidRequest(f"the prepared prompt cannot be read: {error}") from None
    return content, inputs


def _array(values: Any, dtype: str) -> Array:
    array = np.ascontiguousarray(values, dtype)
    return Array(dtype, array.shape, array.tobytes())


def _numpy(array: Array, dtype: str, num_dims: int) -> AnyArray:
    if array.dtype != dtype or dtype not in _TYPES or len(array.shape) != num_dims:
        raise ValueError(f"an array is {array.dtype[:16]} with {len(array.shape)} dimensions")
    size = np.dtype(dtype).itemsize * math.prod(array.shape)
    if min(array.shape, default=0) < 0 or len(array.data) != size:
        raise ValueError("an array's bytes do not fit its shape")
    return np.frombuffer(array.data, dtype).reshape(array.shape)


def _image(image: Image) -> ImageArrays:
    pixels, mask = _numpy(image.pixels, "float32", 4), _numpy(image.patch_mask, "bool", 3)
    if len(pixels) != len(mask) or not len(pixels) or not np.isfinite(pixels).all():
        raise ValueError("a picture's crops are not whole")
    return ImageArrays(pixels, mask, image.size_px, image.num_tokens, image.digest)


def _audio(audio: Audio) -> AudioArrays:
    features = _numpy(audio.features, "float32", 2)
    if not len(features) or not np.isfinite(features).all():
        raise ValueError("a recording's features are not whole")
    return AudioArrays(features, audio.num_tokens, audio.duration_s, audio.digest)


def _check(inputs: ModelInputs, config: Phi4Config) -> None:
    """Ids exist, pictures and recordings fit the encoders, and every span is a medium in its place."""
    ids = inputs.token_ids
    if not len(ids) or ids.min() < 0 or ids.max() >= config.decoder.vocab_size:
        raise ValueError("there are no token ids, or some that the model does not have")
    for image in inputs.images:
        if config.vision is None or image.pixels.shape[1:] != (3, *[config.vision.crop_size] * 2):
            raise ValueError("a picture does not fit this model")
    for audio in inputs.audios:
        if config.speech is None or audio.features.shape[1] != config.speech.input_size:
            raise ValueError("a recording does not fit this model")
    media: dict[str, Sequence[ImageArrays | AudioArrays]] = {"image": inputs.images, "audio": inputs.audios}
    at, seen = 0, {"image": 0, "audio": 0}
    for span in inputs.spans:
        medium = media[span.kind]
        if span.index != seen[span.kind] or span.index >= len(medium) or span.start < at:
            raise ValueError("media do not stand where the prompt says")
        if span.length != medium[span.index].num_tokens or span.length < 1:
            raise ValueError("a medium takes another number of positions than the prompt says")
        seen[span.kind] += 1
        at = span.start + span.length
    if at > len(ids) or (seen["image"], seen["audio"]) != (len(inputs.images), len(inputs.audios)):
        raise ValueError("the prompt does not have a place for each medium")
