"""Texts of parts are joined as the language writes them; counts and times add up to those of one answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from phi4.processing.prompts import split_translation
from phi4.processing.stitching import Transcript, TranscriptSegment, join_texts, join_translations, stitch
from phi4.types import Completion, FinishReason, Timing, TokenLogprob, Usage


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        ([], ""),
        (["one"], "one"),
        ([" one ", "two\n"], "one two"),
        (["one", "", " ", "two"], "one two"),
        (["今日は", "晴れです。"], "今日は晴れです。"),
        (["你好，", "世界"], "你好，世界"),
        (["says 你好", "and goes"], "says 你好and goes"),
        (["Grüße", "aus Köln"], "Grüße aus Köln"),
    ],
)
def test_texts_are_joined_as_they_are_written(texts: list[str], joined: str) -> None:
    assert join_texts(texts) == joined


def test_transcripts_and_translations_are_joined_apart() -> None:
    joined = join_translations(["eins <sep> one", "zwei<sep>two", "three"])
    assert split_translation(joined) == ("eins zwei", "one two three")
    assert join_translations(["one", "two"]) == "one two"


def answer(
    text: str, tokens: tuple[int, ...], reason: FinishReason = "stop", first_s: float = 1.0
) -> Completion:
    usage = Usage(10, len(tokens), 0, 7)
    timing = Timing(0.25, 0.5, first_s, first_s + 1.0, 1, 4, 2)
    return Completion(text, tokens, (), reason, usage, timing, ("speech",))


SPANS = (TranscriptSegment(0.5, 2.0, ""), TranscriptSegment(3.0, 4.5, "", voiced=((3.0, 3.5), (4.0, 4.5))))


def test_parts_add_up_to_one_answer() -> None:
    whole = stitch(SPANS, [answer(" good ", (1, 2)), answer("day", (3,), "length", 0.5)], 6.0)
    assert isinstance(whole, Completion)
    assert whole.text == "good day" and whole.token_ids == (1, 2, 3)
    assert whole.usage == Usage(20, 3, 0, 14)
    assert whole.timing == Timing(0.5, 1.0, 0.5, 2.0, 2, 8, 4)
    assert whole.finish_reason == "length" and whole.adapters == ("speech",)
    assert whole.duration_s == 6.0
    assert whole.segments == (
        TranscriptSegment(0.5, 2.0, "good", (1, 2)),
        TranscriptSegment(3.0, 4.5, "day", (3,), "length", ((3.0, 3.5), (4.0, 4.5))),
    )


def test_log_probabilities_stand_side_by_side_and_shared_positions_add_up() -> None:
    one = replace(answer("a", (1,)), logprobs=(TokenLogprob(1, -0.5),), usage=Usage(10, 1, cached_tokens=4))
    two = replace(answer("b", (2,)), logprobs=(TokenLogprob(2, -1.5),), usage=Usage(10, 1, cached_tokens=3))
    whole = stitch(SPANS, [one, two], 6.0)
    assert [entry.token_id for entry in whole.logprobs] == [1, 2]
    assert whole.usage.cached_tokens == 7


def test_one_part_keeps_its_text_to_the_letter() -> None:
    assert stitch(SPANS[:1], [answer(" good  day ", (1,))], 2.0).text == " good  day "


def test_no_part_is_an_empty_transcript() -> None:
    assert stitch((), (), 9.0) == Transcript("", (), (), "stop", Usage(0, 0), Timing(), duration_s=9.0)


def test_parts_and_answers_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="zip"):
        stitch(SPANS, [answer("one", (1,))], 6.0)
