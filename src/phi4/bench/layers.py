"""What single layers lose when they alone are quantised, as a picture: a row of bars for each kind of matrix.

    draw_layers(nats, chosen, "nano, block 128", folder / "sensitivity.svg")

All bars share a scale. Layers that get 8 bits in a mixed package have a colour of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from phi4.bench.report import digits
from phi4.bench.svg import FAINT, GREY, line, rect, text, write_svg
from phi4.configs import DECODER_TARGETS

CHOSEN = "#dd8a3a"
_WIDTH, _LEFT, _MARGIN = 860, 150, 16
_TOP, _PANEL, _BARS = 78, 108, 70
_MAX_STEP, _ROOM_FOR_A_VALUE = 80.0, 44.0


def draw_layers(losses: Mapping[str, float], chosen: Collection[str], title: str, path: Path) -> None:
    """Write the picture.

    Args:
        losses: KL divergence in nats by name, "decoder.layers.0.mlp.down_proj".
        chosen: Names of those with 8 bits.
        title: What was measured.
        path: The file, by convention ending in .svg.
    """
    most = max(losses.values(), default=0.0)
    lines = [
        text(_MARGIN, 26, title, size=16, weight="bold"),
        text(
            _MARGIN,
            44,
            "Thousandths of a nat: KL divergence of next-token distributions when one matrix has 4 bits",
        ),
        rect(_MARGIN, 51, 10, 10, CHOSEN),
        text(_MARGIN + 16, 60, f"8 bits in the mixed package: {len(chosen)} of {len(losses)}", colour=FAINT),
    ]
    for place, target in enumerate(DECODER_TARGETS):
        found = {_layer(name): value for name, value in losses.items() if name.endswith(target)}
        marked = {_layer(name) for name in chosen if name.endswith(target)}
        lines += _panel(target, found, marked, most, _TOP + (place + 1) * _PANEL - 20)
    write_svg(path, lines, _WIDTH, _TOP + len(DECODER_TARGETS) * _PANEL)


def _panel(
    target: str, losses: Mapping[int, float], marked: Collection[int], most: float, floor: float
) -> Iterator[str]:
    """Bars that stand on `floor`, the layers' numbers below, and the values there is room for above."""
    yield text(_LEFT - 10, floor - _BARS // 2, target, anchor="end")
    if not losses:
        return
    step = min(_MAX_STEP, (_WIDTH - _MARGIN - _LEFT) / (max(losses) + 1))
    yield line(_LEFT, _LEFT + step * (max(losses) + 1), floor)
    worst = max(losses, key=lambda layer: losses[layer])
    for layer, value in losses.items():
        height = _BARS * value / most if most > 0 else 0.0
        x, middle = _LEFT + layer * step, _LEFT + (layer + 0.5) * step
        yield rect(x + 1, floor - height, step - 2, height, CHOSEN if layer in marked else GREY)
        yield text(middle, floor + 12, str(layer), size=9, colour=FAINT, anchor="middle")
        if layer == worst or step >= _ROOM_FOR_A_VALUE:
            yield text(middle, floor - height - 3, digits(1000 * value), size=9, anchor="middle")


def _layer(name: str) -> int:
    return int(name.split(".")[2])
