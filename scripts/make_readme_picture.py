"""Draw docs/nano-at-work.png from what `phi4 demo --json` printed: what went in, what came out.

    phi4 demo --json | python scripts/make_readme_picture.py docs/nano-at-work.png

One panel for each kind of piece (the first of its kind, and the freshly drawn picture). Nothing is
chosen by whether the answer was right; a wrong one is shown in red.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import soundfile
from matplotlib.axes import Axes
from PIL import Image

COLUMNS = 4
RIGHT, WRONG = "#1b7f3b", "#b3261e"


def chosen(pieces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first piece of each title, and the last piece: the picture drawn for this very run."""
    firsts = {piece["title"]: piece for piece in reversed(pieces)}
    kept = [piece for piece in pieces[:-1] if firsts[piece["title"]] is piece]
    return [*kept, {**pieces[-1], "title": "reads a picture drawn for this run"}]


def draw(panel: Axes, piece: dict[str, Any]) -> None:
    """One piece: its picture above its sound above the question and the answer."""
    panel.set_axis_off()
    panel.set_title(piece["title"], fontsize=10, loc="left", fontweight="bold")
    pictures = [name for name in piece["files"] if name.endswith(".png")]
    sounds = [name for name in piece["files"] if not name.endswith(".png")]
    top = 1.0
    for name in pictures:
        inset = panel.inset_axes((0.0, top - 0.52, 1.0, 0.5))
        inset.imshow(Image.open(name))
        inset.set_axis_off()
        top -= 0.54
    for name in sounds:
        samples, _ = soundfile.read(name)
        inset = panel.inset_axes((0.0, top - 0.2, 1.0, 0.18))
        inset.plot(samples, linewidth=0.4, color="#33577b")
        inset.set_axis_off()
        top -= 0.22
    asked = piece["asked"] or f"(in the recording) {piece['spoken']}"
    lines = textwrap.wrap(f"asked: {asked}", 46)
    panel.text(0, top - 0.04, "\n".join(lines), fontsize=8.5, va="top", transform=panel.transAxes)
    answer = "\n".join(
        wrapped for line in piece["answer"].splitlines() for wrapped in textwrap.wrap(line, 44)
    )
    colour = RIGHT if piece["right"] else WRONG
    place = top - 0.1 - 0.065 * len(lines)
    panel.text(
        0, place, answer, fontsize=9, va="top", color=colour, family="monospace", transform=panel.transAxes
    )


def main() -> None:
    """Read JSON lines, write the picture."""
    pieces = chosen([json.loads(line) for line in sys.stdin if line.strip()])
    rows = -(-len(pieces) // COLUMNS)
    figure, panels = plt.subplots(rows, COLUMNS, figsize=(15, 3.1 * rows), squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for panel, piece in zip(panels.flat, pieces, strict=False):
        draw(panel, piece)
    figure.suptitle("phi4-nano, every answer as the model gave it (green = right, red = wrong)", fontsize=11)
    figure.tight_layout()
    figure.savefig(Path(sys.argv[1]), dpi=110)


if __name__ == "__main__":
    main()
