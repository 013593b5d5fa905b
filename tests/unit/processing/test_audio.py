"""Recordings: any format, rate and channel count becomes mono 16 kHz; lies, bombs and noise are refused."""

from __future__ import annotations

import base64
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr

from phi4.errors import InvalidMedia, MissingExtra
from phi4.processing.audio import load_audio
from phi4.processing.media import DEFAULT_LIMITS
from phi4.processing.mel import log_mel
from phi4.testing.media import (
    audio_bytes,
    chirp,
    container_bytes,
    friendly_audio,
    hostile_audio,
    wav_with_header,
)

HAS_AV = importlib.util.find_spec("av") is not None
M4A_HEAD = b"\x00\x00\x00\x20ftypM4A \x00\x00\x00\x00" + bytes(100)


@pytest.mark.parametrize("name", sorted(friendly_audio()))
def test_every_format_becomes_half_a_second_at_16_khz(name: str):
    samples = load_audio(friendly_audio()[name])
    assert samples.dtype == np.float32
    assert samples.shape == (8000,)
    assert 0.2 < samples.std() < 0.4


@pytest.mark.parametrize("rate", [8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 96000])
def test_any_rate_keeps_pitch_and_length(rate: int):
    samples = load_audio(audio_bytes(chirp(2.0, rate), rate, subtype="FLOAT"))
    assert len(samples) == 32000
    wanted = chirp(2.0, 16000)
    middle = slice(800, 24000)  # the chirp stays under 1.6 kHz here, inside the band of every rate
    assert np.abs(samples[middle] - wanted[middle]).max() < 0.01


def test_16_khz_is_passed_through_unchanged():
    samples = chirp(1.0)
    np.testing.assert_array_equal(load_audio(audio_bytes(samples, 16000, subtype="FLOAT")), samples)


def test_resampling_in_blocks_equals_resampling_at_once():
    samples = np.random.default_rng(0).standard_normal(44100 * 15).astype(np.float32) * 0.1
    assert len(samples) > 2 * 2**18
    wanted = soxr.resample(samples, 44100, 16000)
    found = load_audio(audio_bytes(samples, 44100, subtype="FLOAT"))
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_telephone_path_gives_8_khz():
    content = audio_bytes(chirp(1.0, 8000), 8000, subtype="FLOAT")
    samples = load_audio(content, rate=8000)
    np.testing.assert_array_equal(samples, chirp(1.0, 8000))
    assert log_mel(samples, 8000).shape == (98, 80)


@pytest.mark.parametrize("channels", [1, 2, 6, 32])
def test_channels_are_averaged(channels: int):
    levels = np.linspace(-0.5, 0.9, channels)
    content = audio_bytes(np.tile(levels, (4000, 1)), 16000, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(content), levels.mean(), atol=1e-6)


def test_stream_of_unstated_length_is_read_to_its_end():
    samples = (chirp(1.0) * 32767).astype("<i2")
    content = wav_with_header(samples.tobytes(), claim=0xFFFFFFFF)
    assert len(load_audio(content)) == 16000


BOMB = "low_rate_bomb.flac"


def of_unknown_length(samples: Any, rate: int) -> bytes:
    """A FLAC whose header does not say how long it is."""
    content = bytearray(audio_bytes(samples, rate, "FLAC"))
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    return bytes(content)


@pytest.fixture(scope="module")
def refused(measure_loading: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """What each hostile recording came to, in a process of its own."""
    # Silence in FLAC: 40 minutes in a few kilobytes a minute.
    bomb = of_unknown_length(np.zeros(8000 * 2400, np.float32), 8000)
    assert len(bomb) < 2_000_000
    return measure_loading("audio", {**hostile_audio(), BOMB: bomb})


@pytest.mark.parametrize("name", sorted(hostile_audio()))
def test_hostile_recording_is_refused_quickly_in_plain_words(refused: dict[str, Any], name: str):
    found = refused[name]
    assert found.message is not None and name in found.message
    assert not any(leak in found.message for leak in ("0x", "<", "Traceback", "BytesIO"))
    assert found.cpu_s < 1
    assert found.peak_bytes < 32 * 2**20


def test_length_limit_is_named_and_comes_from_the_header():
    limits = replace(DEFAULT_LIMITS, max_audio_s=1.0)
    assert len(load_audio(audio_bytes(chirp(1.0), 16000), limits=limits)) == 16000
    with pytest.raises(InvalidMedia, match=r"longer than the limit of 1 s"):
        load_audio(audio_bytes(chirp(1.1), 16000), limits=limits)


def test_header_that_claims_weeks_of_sound_is_refused_as_too_long():
    with pytest.raises(InvalidMedia, match="longer than the limit of 1800 s"):
        load_audio(hostile_audio()["lying.flac"])


def test_rates_and_channels_have_ranges():
    limits = replace(DEFAULT_LIMITS, min_rate_hz=8000, max_rate_hz=48_000, max_channels=2)
    assert len(load_audio(audio_bytes(chirp(0.2), 16000), limits=limits))
    for rate in (4000, 96_000):
        with pytest.raises(InvalidMedia, match=f"a rate of {rate} Hz, not 8000 to 48000"):
            load_audio(audio_bytes(chirp(0.2, rate), rate), limits=limits)
    with pytest.raises(InvalidMedia, match="3 channels, outside 1 to 2"):
        load_audio(audio_bytes(np.stack([chirp(0.2)] * 3, axis=1), 16000), limits=limits)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(wrong: float):
    samples = chirp(0.2)
    samples[100] = wrong
    with pytest.raises(InvalidMedia, match="samples that are not numbers"):
        load_audio(audio_bytes(samples, 16000, subtype="FLOAT"))


def test_low_rate_bomb_stops_at_the_cap_and_not_at_the_end(refused: dict[str, Any]):
    found = refused[BOMB]
    assert "longer than the limit of 1800 s" in found.message
    cap = 1800 * 16000 * 4
    assert cap / 2 < found.peak_bytes < cap + 32 * 2**20  # 40 minutes would take a third more
    assert found.cpu_s < 5


def test_running_cap_does_not_trust_the_header():
    content = of_unknown_length(chirp(40.0), 16000)
    with pytest.raises(InvalidMedia, match="longer than the limit of 10 s"):
        load_audio(content, limits=replace(DEFAULT_LIMITS, max_audio_s=10.0))


@pytest.mark.parametrize("head", [M4A_HEAD, b"\x1aE\xdf\xa3" + bytes(100)])
def test_container_without_pyav_names_the_extra(monkeypatch: pytest.MonkeyPatch, head: bytes):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match=r"pip install '\.\[video\]'"):
        load_audio(head)


@pytest.mark.skipif(not HAS_AV, reason="needs PyAV")
@pytest.mark.parametrize(
    ("format_id", "codec", "rate", "head"),
    [
        ("ipod", "aac", 44100, b"ftypM4A "),
        ("mp4", "aac", 44100, b"ftypisom"),
        ("mov", "aac", 22050, b"ftypqt  "),
        ("webm", "libopus", 48000, b"\x1aE\xdf\xa3"),
    ],
)
def test_containers_are_decoded_with_pyav(format_id: str, codec: str, rate: int, head: bytes):
    content = container_bytes(chirp(1.0, rate), rate, format_id, codec)
    assert head in content[:12]
    samples = load_audio(content)
    assert 15900 <= len(samples) < 18000
    assert 0.25 < samples[2000:14000].std() < 0.4


@pytest.mark.skipif(not HAS_AV, reason="needs PyAV")
def test_damaged_or_long_container_is_refused():
    content = container_bytes(chirp(1.0, 44100), 44100)
    with pytest.raises(InvalidMedia, match="not a whole, undamaged MP4 recording"):
        load_audio(content[: len(content) // 2])
    with pytest.raises(InvalidMedia, match="longer than the limit"):
        load_audio(content, limits=replace(DEFAULT_LIMITS, max_audio_s=0.5))


def test_data_url_and_path_give_the_same_samples(tmp_path: Path):
    content = friendly_audio()["stereo.flac"]
    path = tmp_path / "talk.flac"
    path.write_bytes(content)
    url = "data:audio/flac;base64," + base64.b64encode(content).decode()
    np.testing.assert_array_equal(load_audio(path), load_audio(url))
    np.testing.assert_array_equal(load_audio(str(path)), load_audio(content))
