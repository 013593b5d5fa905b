"""Pictures of text can be read: inside the frame, large enough, in colours that differ."""

from __future__ import annotations

import numpy as np
import pytest

from phi4.data import generate
from phi4.data.records import stream
from phi4.data.render import (
    MIN_CONTRAST,
    MIN_LETTER_PX,
    break_lines,
    contrast,
    draw_colours,
    fresh_picture,
    letter_px,
    text_picture,
)
from phi4.data.world.words import CONTENT_WORDS

PICTURES = [generate("read_text", split, i) for split in ("train", "test") for i in range(60)]


def ink_mask(record: object) -> np.ndarray:
    """Where the picture is nearer to the ink than to the paper."""
    picture = record.media[0].source.astype(float)
    ink, paper = (np.array(record.metadata[name], float) for name in ("ink", "paper"))
    return np.linalg.norm(picture - ink, axis=-1) < 0.7 * np.linalg.norm(picture - paper, axis=-1)


def test_letters_are_wide_enough_and_lines_say_the_answer() -> None:
    for record in PICTURES:
        made = record.metadata
        assert " ".join(made["lines"]) == record.answers[0]
        assert letter_px(tuple(made["lines"]), made["face"], made["size_px"]) >= MIN_LETTER_PX


def test_pictures_have_the_agreed_size() -> None:
    for record in PICTURES:
        height, width, channels = record.media[0].source.shape
        assert 64 <= height <= 112 and width in (224, 280, 336) and channels == 3


def test_ink_never_touches_the_frame() -> None:
    for record in PICTURES:
        inside = ink_mask(record)
        edge = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
        assert inside.sum() > 20, record.answers
        assert edge.mean() < 0.01, record.answers


def test_ink_and_paper_differ_enough_for_a_person() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21.0)
    for record in PICTURES:
        assert contrast(tuple(record.metadata["ink"]), tuple(record.metadata["paper"])) >= MIN_CONTRAST
    assert all(contrast(*draw_colours(stream("colours", i))) >= MIN_CONTRAST for i in range(100))


def test_characters_are_where_the_record_says() -> None:
    """Ink lies within a letter's reach of each stated middle, and the middles spell the answer."""
    near = total = 0
    for record in PICTURES:
        inside = ink_mask(record)
        reach = max(4, record.metadata["size_px"] // 3)
        assert "".join(g[0] for g in record.metadata["glyphs"]) == record.answers[0].replace(" ", "")
        for char, x, y in record.metadata["glyphs"]:
            if char.isalnum():
                top, left = max(0, int(y) - reach), max(0, int(x) - reach)
                total += 1
                near += bool(inside[top : int(y) + reach, left : int(x) + reach].any())
    assert near / total > 0.995


def test_lines_break_at_spaces_evenly() -> None:
    assert break_lines("one two three four", 2) == ("one two", "three four")
    assert break_lines("single", 3) == ("single",)


@pytest.mark.parametrize("face", ["built-in", "DejaVuSansMono", "LiberationSerif-Italic"])
def test_the_longest_texts_fit(face: str) -> None:
    picture, made = text_picture("MUSHROOM UMBRELLA NEIGHBOUR SUNSHINE BASKET", face, stream("long", face))
    assert len(made["lines"]) >= 2 and picture.shape[1] in (224, 280, 336)


def test_a_fresh_picture_is_new_every_time_and_holds_a_number() -> None:
    made = [fresh_picture(np.random.default_rng(seed), CONTENT_WORDS) for seed in range(8)]
    assert len({text for _, text in made}) == 8
    assert all(text.split()[-1].isdigit() and 2 <= len(text.split()) <= 3 for _, text in made)
