"""The picture of single layers has a bar for each, of the height of its loss."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Collection
from pathlib import Path

import pytest

from phi4.bench.layers import CHOSEN, draw_layers
from phi4.bench.svg import GREY
from phi4.configs import DECODER_TARGETS

NAMES = [f"decoder.layers.{layer}.{target}" for layer in range(3) for target in DECODER_TARGETS]
SVG = "{http://www.w3.org/2000/svg}"


def bars(path: Path, colours: Collection[str] = (GREY, CHOSEN)) -> list[tuple[str, float]]:
    """Colour and height of each bar, the legend left out."""
    found = [r for r in ElementTree.parse(path).getroot().iter(f"{SVG}rect") if r.get("fill") in colours]
    return [(str(r.get("fill")), float(str(r.get("height")))) for r in found][1:]


def test_bars_are_as_high_as_losses_and_marked_where_chosen(tmp_path: Path) -> None:
    losses = {name: float(number) for number, name in enumerate(NAMES)}
    draw_layers(losses, NAMES[-2:], "a & b <c>", tmp_path / "x.svg")
    drawn = bars(tmp_path / "x.svg")
    by_target = [name for target in DECODER_TARGETS for name in NAMES if name.endswith(target)]
    most = max(height for _, height in drawn)
    for name, (colour, height) in zip(by_target, drawn, strict=True):
        assert colour == (CHOSEN if name in NAMES[-2:] else GREY)
        assert height == pytest.approx(most * losses[name] / 11, abs=0.06)
    words = "".join(ElementTree.parse(tmp_path / "x.svg").getroot().itertext())
    assert "a & b <c>" in words and "2 of 12" in words and "11,000" in words


@pytest.mark.parametrize("losses", [{}, dict.fromkeys(NAMES, 0.0)], ids=["nothing", "no loss"])
def test_nothing_to_draw_is_still_a_picture(losses: dict[str, float], tmp_path: Path) -> None:
    draw_layers(losses, (), "none", tmp_path / "x.svg")
    assert all(height == 0 for _, height in bars(tmp_path / "x.svg"))


def test_same_losses_give_the_same_bytes(tmp_path: Path) -> None:
    losses = {name: 0.1 * number for number, name in enumerate(NAMES)}
    for name in ("a.svg", "b.svg"):
        draw_layers(losses, NAMES[:1], "x", tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
