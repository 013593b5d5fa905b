"""Damage of any kind to a small valid file gives a value or `InvalidMedia`, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4.errors import InvalidMedia
from phi4.processing.audio import load_audio
from phi4.processing.images import load_image
from phi4.testing.media import friendly_audio, friendly_images

IMAGES, AUDIO = friendly_images(), friendly_audio()
LEAKS = ("0x", "<", "BytesIO", "Traceback")


@st.composite
def damage(draw: st.DrawFn, content: bytes) -> bytes:
    """Cut, flipped bits (often in the header), a piece overwritten, or a piece left out."""
    near = st.integers(0, min(len(content), 64) - 1)
    place = st.one_of(near, st.integers(0, len(content) - 1))
    kind = draw(st.sampled_from(("cut", "flip", "fill", "drop")))
    start = draw(place)
    if kind == "cut":
        return content[:start]
    if kind == "drop":
        return content[:start] + content[start + draw(st.integers(1, 40)) :]
    damaged = bytearray(content)
    if kind == "fill":
        damaged[start : start + 8] = draw(st.binary(min_size=8, max_size=8))
        return bytes(damaged)
    for _ in range(draw(st.integers(1, 4))):
        damaged[draw(place)] ^= 1 << draw(st.integers(0, 7))
    return bytes(damaged)


@pytest.mark.parametrize("name", sorted(IMAGES))
@settings(max_examples=150)
@given(data=st.data())
def test_damaged_picture_gives_rgb_or_invalid_media(name: str, data: st.DataObject):
    try:
        image = load_image(data.draw(damage(IMAGES[name])))
    except InvalidMedia as error:
        assert not any(leak in str(error) for leak in LEAKS)
    else:
        assert image.mode == "RGB"
        assert min(image.size) >= 1


@pytest.mark.parametrize("name", sorted(AUDIO))
@settings(max_examples=100)
@given(data=st.data())
def test_damaged_recording_gives_finite_samples_or_invalid_media(name: str, data: st.DataObject):
    try:
        samples = load_audio(data.draw(damage(AUDIO[name])))
    except InvalidMedia as error:
        assert not any(leak in str(error) for leak in LEAKS)
    else:
        assert samples.dtype == np.float32
        assert np.isfinite(samples).all()


@settings(max_examples=300)
@given(content=st.binary(max_size=300), kind=st.sampled_from((load_image, load_audio)))
def test_arbitrary_bytes_are_never_media(content: bytes, kind):
    with pytest.raises(InvalidMedia):
        kind(content)
