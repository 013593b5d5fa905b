"""Claims about stop rules on fixed examples; random splits are in `tests/property`."""

from __future__ import annotations

import pytest

from phi4.engine.answering.stop import StopStrings, StopTokens, held_back
from phi4.errors import InvalidRequest


def test_a_stop_string_inside_one_piece_cuts_before_it() -> None:
    stops = StopStrings(("END",))
    assert stops.push("hello END world") == "hello "
    assert stops.stopped
    assert stops.push("more") == ""


def test_a_stop_string_split_over_pieces_is_never_shown() -> None:
    stops = StopStrings(("</a>",))
    shown = [stops.push(piece) for piece in ("x<", "/", "a", ">", "y")]
    assert "".join(shown) == "x"
    assert stops.stopped


def test_a_false_beginning_is_shown_once_it_cannot_be_a_stop() -> None:
    stops = StopStrings(("</a>",))
    assert stops.push("x</") == "x"
    assert stops.push("b>") == "</b>"
    assert not stops.stopped


def test_flush_gives_back_a_held_beginning() -> None:
    stops = StopStrings(("abc",))
    assert stops.push("zab") == "z"
    assert stops.flush() == "ab"
    assert stops.flush() == ""


def test_the_stop_completed_first_wins() -> None:
    stops = StopStrings(("later", "soon"))
    assert stops.push("a soon b later") == "a "


def test_an_overlapping_beginning_is_not_lost() -> None:
    stops = StopStrings(("aab",))
    assert stops.push("aaa") == "a"
    assert stops.push("b") == ""
    assert stops.stopped


def test_held_back_is_the_longest_proper_beginning() -> None:
    assert held_back("xab", ("abab", "b!")) == 2
    assert held_back("xyz", ("abab",)) == 0
    assert held_back("", ("a",)) == 0


@pytest.mark.parametrize("wrong", ["", 7, None])
def test_a_stop_string_that_is_no_text_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidRequest, match=f"a stop string is {wrong!r}; give text"):
        StopStrings(("ok", wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["END", 5, None, {"END"}])
def test_stops_that_are_no_list_are_refused(wrong: object) -> None:
    with pytest.raises(InvalidRequest, match=f"stop is {wrong!r}; give a list of strings"):
        StopStrings(wrong)  # type: ignore[arg-type]


def test_a_list_of_stops_is_as_good_as_a_tuple() -> None:
    assert StopStrings(["END"]).stops == ("END",)  # type: ignore[arg-type]


def test_a_stop_id_wins_over_the_length_limit() -> None:
    rule = StopTokens((7, 9), max_new_tokens=2)
    assert rule.check(7, 2) == "stop"
    assert rule.check(5, 1) is None
    assert rule.check(5, 2) == "length"
