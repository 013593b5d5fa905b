"""Property: what a stop rule shows does not depend on how the text was split."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from phi4.engine.answering.stop import StopStrings

TEXT = st.text(alphabet="abc", max_size=30)
STOPS = st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=3)


def shown_when_split(text: str, stops: list[str], cuts: list[int]) -> tuple[str, bool]:
    rule = StopStrings(tuple(stops))
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    shown = "".join(rule.push(text[a:b]) for a, b in itertools.pairwise(edges))
    return shown + rule.flush(), rule.stopped


@given(TEXT, STOPS, st.lists(st.integers(0, 100), max_size=12))
def test_any_split_never_shows_a_stop_and_loses_nothing_else(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    shown, stopped = shown_when_split(text, stops, cuts)
    assert text.startswith(shown)
    assert not any(stop in shown for stop in stops)
    assert stopped == any(stop in text for stop in stops)
    if not stopped:
        assert shown == text


@given(TEXT, STOPS, st.lists(st.integers(0, 100), max_size=12))
def test_what_is_shown_does_not_depend_on_the_split(text: str, stops: list[str], cuts: list[int]) -> None:
    assert shown_when_split(text, stops, cuts) == shown_when_split(text, stops, list(range(len(text))))
