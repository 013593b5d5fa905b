"""Voices are found wherever they are, noise of any colour and silence are not, and cuts fall into pauses."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile

from phi4.errors import InvalidRequest
from phi4.processing.mel import log_mel
from phi4.processing.speech_segments import SpeechSegment, SpeechSettings, find_speech, segment_speech
from phi4.processing.speech_signs import SpeechSigns
from phi4.shapes import AnyArray, FloatArray
from phi4.testing.voices import talk, voice


def noise(seconds: float, rms: float, tilt_db_per_octave: float = 0.0, seed: int = 7) -> FloatArray:
    """Noise whose spectrum rises by so much an octave."""
    count = round(16000 * seconds)
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(size=count))
    frequency = np.maximum(np.fft.rfftfreq(count, 1 / 16000), 50.0)
    shaped = np.fft.irfft(spectrum * (frequency / 1000) ** (tilt_db_per_octave / 6.02), count)
    return (rms * shaped / np.sqrt(np.mean(shaped**2))).astype(np.float32)


def covers(regions: tuple[tuple[int, int], ...], start_s: float, end_s: float) -> float:
    """Share of this time that lies in the regions."""
    low, high = 100 * start_s, 100 * end_s
    return sum(max(0.0, min(stop, high) - max(start, low)) for start, stop in regions) / (high - low)


def test_voices_are_found_between_pauses() -> None:
    regions = find_speech(log_mel(talk(1.0, 2.0, 1.5, 0.6, 2.0, 3.0, 1.0)))
    assert len(regions) == 3
    for (start, stop), (begin_s, end_s) in zip(regions, [(1.0, 3.0), (4.5, 5.1), (7.1, 10.1)], strict=True):
        assert begin_s - 0.35 <= start / 100 <= begin_s + 0.05
        assert end_s - 0.05 <= stop / 100 <= end_s + 0.35


@pytest.mark.parametrize("gain_db", [-40, -20, 0, 20])
def test_loudness_of_the_recording_does_not_matter(gain_db: float) -> None:
    samples = np.clip(talk(1.0, 2.0, 1.0) * 10 ** (gain_db / 20), -1, 1).astype(np.float32)
    regions = find_speech(log_mel(samples))
    assert covers(regions, 1.1, 2.9) > 0.95
    assert covers(regions, 0.0, 0.6) == 0


@pytest.mark.parametrize("tilt", [0.0, -3.0, -6.0, -12.0, 3.0])
@pytest.mark.parametrize("rms", [1e-5, 1e-3, 0.01, 0.1, 0.3])
def test_noise_of_any_colour_and_loudness_is_no_speech(tilt: float, rms: float) -> None:
    assert find_speech(log_mel(noise(12.0, rms, tilt))) == ()


@pytest.mark.parametrize("seconds", [0.025, 0.03, 0.5, 5.0, 100.0])
def test_digital_silence_is_no_speech(seconds: float) -> None:
    assert find_speech(log_mel(np.zeros(round(16000 * seconds), np.float32))) == ()


def test_silence_that_turns_into_room_noise_is_no_speech() -> None:
    samples = np.concatenate([np.zeros(48000, np.float32), noise(5.0, 0.002, -3.0), noise(5.0, 0.02)])
    assert find_speech(log_mel(samples)) == ()


def test_hum_of_the_mains_is_background() -> None:
    seconds = np.arange(16000 * 10) / 16000
    hum = sum(0.01 / k * np.sin(2 * np.pi * 50 * k * seconds) for k in range(1, 12))
    assert find_speech(log_mel((hum + noise(10.0, 1e-4)).astype(np.float32))) == ()


def test_traces_far_below_any_recording_are_silence() -> None:
    voices = talk(1.0, 2.0, 1.0, noise=0.0)
    assert find_speech(log_mel(voices * np.float32(1e-3)))  # 84 dB below full scale
    assert find_speech(log_mel(voices * np.float32(1e-4))) == ()  # 104 dB


def test_noise_with_few_uneven_moments_is_no_speech() -> None:
    samples = np.concatenate([np.zeros(48000, np.float32), noise(9.0, 0.1, -12.0)])
    assert find_speech(log_mel(samples)) == ()
    assert find_speech(log_mel(samples), judge=SpeechSigns(structured_share=0.0))


def test_clicks_are_no_speech() -> None:
    samples = noise(10.0, 0.0005)
    samples[8000::16000] += 0.8
    samples[8001::16000] -= 0.8
    assert find_speech(log_mel(samples)) == ()


@pytest.mark.parametrize("snr_db", [20, 10, 5])
def test_voice_in_noise_is_found(snr_db: float) -> None:
    samples = talk(2.0, 3.0, 2.0, noise=0.0)
    found = find_speech(log_mel(samples + noise(7.0, 0.06 * 10 ** (-snr_db / 20), -3.0)))
    assert covers(found, 2.0, 5.0) > 0.9
    assert covers(found, 0.0, 1.4) < 0.1 and covers(found, 5.6, 7.0) < 0.1


@pytest.mark.parametrize("seconds", [0.3, 0.5, 1.0, 4.0, 30.0])
def test_a_recording_full_of_voice_is_heard_whole(seconds: float) -> None:
    assert covers(find_speech(log_mel(voice(seconds, seed=3))), 0.0, seconds - 0.02) > 0.9


def test_shipped_recordings_of_speech_are_speech(repository: Path) -> None:
    for path in sorted((repository / "examples" / "media").glob("*.wav")):
        samples, rate = soundfile.read(path, dtype="float32")
        assert rate == 16000
        regions = find_speech(log_mel(samples))
        assert regions and sum(stop - start for start, stop in regions) > 0.5 * len(samples) / 160, path.name


def lengths_s(segments: tuple[SpeechSegment, ...]) -> list[float]:
    return [(segment.stop - segment.start) / 100 for segment in segments]


def check_order(segments: tuple[SpeechSegment, ...], num_frames: int) -> None:
    """In order, apart, inside the recording, and made of their voiced stretches."""
    borders = [border for segment in segments for border in (segment.start, segment.stop)]
    assert borders == sorted(borders) and all(s.start < s.stop for s in segments)
    assert not borders or (borders[0] >= 0 and borders[-1] <= num_frames)
    for segment in segments:
        assert (segment.voiced[0][0], segment.voiced[-1][1]) == (segment.start, segment.stop)


def test_long_recordings_are_cut_at_pauses() -> None:
    spans = [0.5, *itertools.chain.from_iterable((4.0, 0.7 if k % 3 else 1.4) for k in range(20))]
    features = log_mel(talk(*spans))
    segments = segment_speech(features)
    check_order(segments, len(features))
    assert max(lengths_s(segments)) <= 30.0 and len(segments) == 4
    voiced = find_speech(features)
    assert (
        tuple(stretch for segment in segments for stretch in segment.voiced) == voiced
    )  # no stretch was cut


def test_a_break_is_made_at_the_longest_pause_of_the_later_half() -> None:
    segments = segment_speech(log_mel(talk(0.5, 9.0, 0.8, 9.0, 1.5, 6.0, 0.7, 9.0, 0.5)))
    assert [len(segment.voiced) for segment in segments] == [2, 2]


def test_a_pause_of_two_seconds_always_ends_a_segment() -> None:
    segments = segment_speech(log_mel(talk(0.5, 1.0, 2.6, 1.0, 1.0, 1.0, 0.5)))
    assert [len(segment.voiced) for segment in segments] == [1, 2]
    finer = segment_speech(log_mel(talk(0.5, 1.0, 2.6, 1.0, 1.0, 1.0, 0.5)), SpeechSettings(pause_s=0.5))
    assert [len(segment.voiced) for segment in finer] == [1, 1, 1]


def test_speech_without_pauses_is_cut_at_its_quietest_places() -> None:
    samples = voice(70.0, seed=1)
    for second in (22, 41):
        samples[16000 * second : 16000 * second + 2400] *= 0.02  # shorter than what counts as a pause
    features = log_mel(samples)
    segments = segment_speech(features)
    check_order(segments, len(features))
    assert max(lengths_s(segments)) <= 30.0
    cuts = [segment.stop / 100 for segment in segments[:-1]]
    assert cuts[0] == pytest.approx(22.07, abs=0.15) and cuts[1] == pytest.approx(41.07, abs=0.15)
    assert sum(lengths_s(segments)) == pytest.approx(70.0, abs=0.2)


@pytest.mark.parametrize("most_s", [1.0, 7.0, 40.0])
def test_no_segment_is_longer_than_asked(most_s: float) -> None:
    features = log_mel(talk(0.2, 23.0, 0.4, 0.5, 0.3, 14.0, 3.0, 2.0))
    segments = segment_speech(features, SpeechSettings(max_segment_s=most_s))
    check_order(segments, len(features))
    assert segments and max(lengths_s(segments)) <= most_s


def test_without_skipping_every_frame_is_in_a_segment() -> None:
    features = log_mel(talk(12.0, 2.0, 30.0, 3.0, 20.0))
    segments = segment_speech(features, skip_silence=False)
    check_order(segments, len(features))
    assert segments[0].start == 0 and segments[-1].stop == len(features)
    assert all(a.stop == b.start for a, b in itertools.pairwise(segments))
    assert segment_speech(log_mel(np.zeros(16000, np.float32)), skip_silence=False)[0].stop == 98


@pytest.mark.parametrize("seconds", [0.0, -3.0, 0.5, 41.0, float("nan")])
def test_impossible_lengths_are_refused(seconds: float) -> None:
    with pytest.raises(InvalidRequest, match=r"max_segment_s is .*give 1 to 40 seconds"):
        SpeechSettings(max_segment_s=seconds)


def test_half_an_hour_costs_seconds_and_little_memory() -> None:
    features: AnyArray = np.tile(log_mel(talk(0.5, 5.0, 1.0, 3.0, 0.5)), (180, 1))
    segments = segment_speech(features)
    assert len(features) > 179_000 and len(segments) > 60
    check_order(segments, len(features))
