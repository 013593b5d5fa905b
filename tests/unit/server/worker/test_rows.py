"""Prompts as bytes, and what the engine refuses to take from a preparer that was captured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from phi4.configs import Phi4Config
from phi4.engine.structured.spec import GrammarSpec
from phi4.errors import InvalidRequest
from phi4.processing.processor import Processor
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.server.worker.rows import Array, RowContent, pack_row, unpack_row
from phi4.testing.media import audio_bytes, chirp, image_bytes, ramp_picture
from phi4.types import MediaSpan, ModelInputs


@pytest.fixture(scope="module")
def inputs(served_config: Phi4Config, served_tokenizer: Phi4Tokenizer) -> ModelInputs:
    """A prompt with a picture and a recording."""
    content = [
        {"type": "image", "image": image_bytes("PNG", ramp_picture(100, 60))},
        {"type": "audio", "audio": audio_bytes(chirp(0.5), 16000)},
        {"type": "text", "text": "turn on the light"},
    ]
    return Processor(served_config, served_tokenizer).prepare([{"role": "user", "content": content}])


def test_a_row_arrives_as_it_was_packed(inputs: ModelInputs, served_config: Phi4Config) -> None:
    grammar = GrammarSpec("regex", "a+")
    blob = pack_row(inputs, tool_names=("add",), grammar=grammar, adapter="mine")
    content, found = unpack_row(blob, served_config)
    assert (content.tool_names, content.grammar, content.adapter) == (("add",), grammar, "mine")
    assert found.spans == inputs.spans
    np.testing.assert_array_equal(found.token_ids, inputs.token_ids)
    np.testing.assert_array_equal(found.images[0].pixels, inputs.images[0].pixels)
    np.testing.assert_array_equal(found.images[0].patch_mask, inputs.images[0].patch_mask)
    np.testing.assert_array_equal(found.audios[0].features, inputs.audios[0].features)
    assert found.images[0].size_px == inputs.images[0].size_px
    assert found.images[0].digest == inputs.images[0].digest
    assert found.audios[0].num_tokens == inputs.audios[0].num_tokens


def changed(**fields: Any) -> Callable[[RowContent], RowContent]:
    return lambda content: msgspec.structs.replace(content, **fields)


def with_image(**fields: Any) -> Callable[[RowContent], RowContent]:
    def change(content: RowContent) -> RowContent:
        return msgspec.structs.replace(
            content, images=(msgspec.structs.replace(content.images[0], **fields),)
        )

    return change


def with_audio(**fields: Any) -> Callable[[RowContent], RowContent]:
    def change(content: RowContent) -> RowContent:
        return msgspec.structs.replace(
            content, audios=(msgspec.structs.replace(content.audios[0], **fields),)
        )

    return change


def ids(*values: int) -> Array:
    return Array("int64", (len(values),), np.array(values, np.int64).tobytes())


LIES = {
    "no tokens": changed(token_ids=ids()),
    "a negative token": changed(token_ids=ids(-1, 2)),
    "a token beyond the vocabulary": changed(token_ids=ids(1, 320)),
    "tokens of another type": changed(token_ids=Array("float32", (2,), bytes(8))),
    "more shape than bytes": changed(token_ids=Array("int64", (2**40,), bytes(8))),
    "a negative shape": changed(token_ids=Array("int64", (-1,), b"")),
    "objects": changed(token_ids=Array("O", (1,), bytes(8))),
    "a place that is not there": changed(spans=(MediaSpan("image", 0, 10**6, 5),)),
    "no places": changed(spans=()),
    "a place for media that do not come": changed(images=()),
    "crops of another size": with_image(pixels=Array("float32", (1, 3, 8, 8), bytes(768))),
    "pixels without end": with_image(
        pixels=Array("float32", (1, 3, 56, 56), np.full(9408, np.nan, np.float32).tobytes())
    ),
    "another number of positions": with_image(num_tokens=7),
    "too few mel bands": with_audio(features=Array("float32", (10, 3), bytes(120))),
    "an empty recording": with_audio(features=Array("float32", (0, 80), b"")),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_row_that_lies_is_refused(lie: str, inputs: ModelInputs, served_config: Phi4Config) -> None:
    content = msgspec.msgpack.decode(pack_row(inputs), type=RowContent)
    blob = msgspec.msgpack.encode(LIES[lie](content))
    with pytest.raises(InvalidRequest, match="cannot be read"):
        unpack_row(blob, served_config)


def test_bytes_that_are_no_row_are_refused(served_config: Phi4Config) -> None:
    for blob in (b"", b"\x00", b"\xc1" * 50, msgspec.msgpack.encode({"token_ids": [1, 2]})):
        with pytest.raises(InvalidRequest, match="cannot be read"):
            unpack_row(blob, served_config)


def test_the_model_the_lies_are_about_is_the_tiny_one(served_config: Phi4Config, served_model: Path) -> None:
    assert served_config.decoder.vocab_size == 320
    assert served_config.vision is not None and served_config.vision.crop_size == 56
    assert (served_model / "tokenizer.json").is_file()
