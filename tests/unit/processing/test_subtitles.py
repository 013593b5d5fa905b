"""Subtitles: the grammar of each format, lines that can be read, and times that rise within what was said."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from phi4.processing.stitching import TranscriptSegment
from phi4.processing.subtitles import (
    CUE_CHARS,
    LINE_CHARS,
    compression_ratio,
    make_cues,
    to_srt,
    to_vtt,
    verbose_json,
)

SHORT = (TranscriptSegment(0.5, 2.25, "Good day."), TranscriptSegment(3661.0, 3662.5, "Goodbye."))
LONG = TranscriptSegment(
    10.0,
    30.0,
    "The first sentence is about the weather, which is fine today. The second one is a little longer, since "
    "it tells how the weather was yesterday, when it was not fine. And the third? It is short.",
)
SRT_TIME = r"\d\d:\d\d:\d\d,\d\d\d"


def test_srt_of_short_segments() -> None:
    assert to_srt(SHORT) == (
        "1\n00:00:00,500 --> 00:00:02,250\nGood day.\n\n2\n01:01:01,000 --> 01:01:02,500\nGoodbye.\n"
    )


def test_vtt_says_that_times_are_derived() -> None:
    head, note, *cues = to_vtt(SHORT).split("\n\n")
    assert head == "WEBVTT" and note.startswith("NOTE\nTimes are derived from the sound")
    assert cues == ["00:00:00.500 --> 00:00:02.250\nGood day.", "01:01:01.000 --> 01:01:02.500\nGoodbye.\n"]


def test_nothing_said_is_an_empty_file_of_each_format() -> None:
    for nothing in ((), (TranscriptSegment(0.0, 5.0, "  "),)):
        assert to_srt(nothing) == ""
        assert to_vtt(nothing).startswith("WEBVTT\n\nNOTE\n") and "-->" not in to_vtt(nothing)


def test_text_cannot_break_out_of_its_cue() -> None:
    hostile = (TranscriptSegment(0.0, 4.0, "a --> b\n\n00:00:09,000 --> 00:00:10,000\n<b>&amp; c</b>"),)
    assert len(re.findall(rf"^{SRT_TIME} --> {SRT_TIME}$", to_srt(hostile), re.MULTILINE)) == 1
    assert to_srt(hostile).count("-->") == 1
    body = to_vtt(hostile).split("\n\n", 2)[2]
    assert body.count("-->") == 1 and "<b>" not in body and "&lt;b&gt;&amp;amp; c&lt;/b&gt;" in body


def test_long_segments_become_cues_that_can_be_read() -> None:
    cues = make_cues((LONG,))
    assert all(len(cue.text) <= CUE_CHARS for cue in cues) and len(cues) >= 3
    assert " ".join(cue.text for cue in cues) == LONG.text
    for block in to_srt((LONG,)).split("\n\n"):
        lines = block.strip().split("\n")[2:]
        assert 1 <= len(lines) <= 2 and all(len(line) <= LINE_CHARS for line in lines)


def test_cues_end_where_sentences_end_when_they_can() -> None:
    texts = [cue.text for cue in make_cues((LONG,))]
    assert texts[0] == "The first sentence is about the weather, which is fine today."
    assert make_cues((TranscriptSegment(0.0, 2.0, "Yes. No. Perhaps."),))[0].text == "Yes. No. Perhaps."


def test_times_share_out_the_speech_and_skip_pauses() -> None:
    text = f"{'a' * 20}. {'b' * 19}."
    even = make_cues((TranscriptSegment(0.0, 4.1, text),), max_chars=22)
    assert [(cue.start_ms, cue.end_ms) for cue in even] == [(0, 2100), (2100, 4100)]
    spoken = TranscriptSegment(0.0, 10.1, text, voiced=((0.0, 2.1), (8.1, 10.1)))
    assert [(cue.start_ms, cue.end_ms) for cue in make_cues((spoken,), max_chars=22)] == [
        (0, 2100),
        (8100, 10100),
    ]


def test_cues_of_segments_that_overlap_do_not() -> None:
    cues = make_cues((TranscriptSegment(0.0, 5.0, "one"), TranscriptSegment(4.5, 8.0, "two")))
    assert [(cue.start_ms, cue.end_ms) for cue in cues] == [(0, 5000), (5000, 8000)]


def test_words_and_texts_without_spaces_are_cut_too() -> None:
    cues = make_cues((TranscriptSegment(0.0, 9.0, "天" * 200),))
    assert "".join(cue.text for cue in cues) == "天" * 200 and max(len(cue.text) for cue in cues) <= CUE_CHARS
    assert make_cues((TranscriptSegment(0.0, 9.0, f"a {'x' * 300} b"),))


words = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=30)


@given(
    st.lists(
        st.tuples(st.floats(0, 5), st.floats(0.01, 30), st.lists(words, max_size=40).map(" ".join)),
        max_size=6,
    )
)
def test_times_rise_and_no_text_is_lost(spans: list[tuple[float, float, str]]) -> None:
    segments, at = [], 0.0
    for pause, length, text in spans:
        segments.append(TranscriptSegment(at + pause, at + pause + length, text))
        at += pause + length
    cues = make_cues(segments)
    assert all(cue.start_ms < cue.end_ms for cue in cues)
    assert all(a.end_ms <= b.start_ms for a, b in itertools.pairwise(cues))
    squeezed = [
        "".join(part.split()) for part in ("".join(c.text for c in cues), "".join(s.text for s in segments))
    ]
    assert squeezed[0] == squeezed[1]
    to_srt(segments).encode("utf-8")
    assert to_vtt(segments).count("-->") == len(cues)


def test_verbose_json_has_the_fields_clients_read_and_invents_none() -> None:
    told: dict[str, Any] = verbose_json(SHORT, 3700.1234, language="english", temperature=0.2)
    assert (told["task"], told["language"], told["duration"]) == ("transcribe", "english", 3700.123)
    assert told["text"] == "Good day. Goodbye." and told["timing"] == "derived"
    first = told["segments"][0]
    assert (first["id"], first["seek"], first["start"], first["end"]) == (0, 50, 0.5, 2.25)
    assert (first["text"], first["tokens"], first["temperature"]) == ("Good day.", [], 0.2)
    assert first["avg_logprob"] is None and first["no_speech_prob"] is None
    assert verbose_json((), 1.0)["language"] == "unknown"


def test_parts_that_are_not_whole_say_so() -> None:
    assert verbose_json(SHORT, 9.0)["finish_reason"] == "stop" and "not whole" not in to_vtt(SHORT)
    cut = (SHORT[0], replace(SHORT[1], finish_reason="repetition"))
    told = verbose_json(cut, 9.0)
    assert told["finish_reason"] == "repetition"
    assert [segment["finish_reason"] for segment in told["segments"]] == ["stop", "repetition"]
    assert re.search(r"NOTE\n[\d:.]+ to [\d:.]+ is not whole \(repetition\)\.\n", to_vtt(cut))


def test_text_that_repeats_itself_compresses_well() -> None:
    assert compression_ratio("") == 0.0
    assert compression_ratio(LONG.text) < 2.4 < compression_ratio("and then and then " * 40)
