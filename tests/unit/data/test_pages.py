"""Pages are full of print, know every character on them, and keep inside the picture."""

from __future__ import annotations

import numpy as np
import pytest

from phi4.data import generate


@pytest.mark.parametrize("index", range(6))
def test_every_visible_character_of_a_page_is_located_inside_it(index: int) -> None:
    record = generate("page", "train", index)
    pixels = np.asarray(record.media[0].source)
    glyphs = record.metadata["glyphs"]
    assert "".join(g[0] for g in glyphs) == record.answers[0].replace(" ", "")
    assert record.metadata["texts"] == [record.answers[0]]
    height_px, width_px = pixels.shape[:2]
    assert width_px % 112 == 0 and height_px % 112 == 0
    assert all(0 <= x < width_px and 0 <= y < height_px for _, x, y in glyphs)


def test_a_page_shows_several_times_the_characters_of_a_sign() -> None:
    def mean_characters(task: str) -> float:
        return float(np.mean([len(generate(task, "train", i).metadata["glyphs"]) for i in range(30)]))

    assert mean_characters("page") > 3 * mean_characters("read_text")
