"""What pictures cost, said before the model runs: crops, tokens, and the same with another detail."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi4.cli.console import print_json, print_text, printable

if TYPE_CHECKING:
    from phi4.api import Phi4
    from phi4.types import Detail

SHOWN = ("high", "low")
"""Details that differ; "auto" is one of them."""


def cost_of(model: Phi4, file: str, detail: Detail | None) -> dict[str, Any]:
    """A picture's size, and its crops and tokens at each detail, as plain values.

    Args:
        model: Whose crops they are.
        file: Only its header is read.
        detail: The one that was chosen; None = the default.

    Raises:
        InvalidMedia: The file cannot be opened, or the picture is too long and thin.
        InvalidRequest: The model takes no pictures.
    """
    from phi4.processing.images import picture_size

    width_px, height_px = picture_size(Path(file))
    plans = model.picture_costs((width_px, height_px))
    return {
        "file": file,
        "width_px": width_px,
        "height_px": height_px,
        "detail": "low" if detail == "low" else "high",
        "costs": {
            name: {"crops": plan.num_crops, "tokens": plan.num_tokens}
            for name, plan in plans.items()
            if name in SHOWN
        },
    }


def cost_line(cost: dict[str, Any], crop_s: float | None = None) -> str:
    """The cost as a line: what was chosen first, and the other detail where it costs something else.

    Args:
        cost: From `cost_of`.
        crop_s: Measured seconds the encoder takes for a crop; None = say nothing about time.
    """
    chosen, costs = cost["detail"], cost["costs"]
    (other,) = (name for name in SHOWN if name != chosen)
    line = f"picture {Path(cost['file']).name}, {cost['width_px']}x{cost['height_px']}: "
    line += f"{_amount(costs[chosen], crop_s)} (detail {chosen})"
    return line if costs[other] == costs[chosen] else f"{line}; {other}: {_amount(costs[other], crop_s)}"


def show_costs(costs: list[dict[str, Any]], crop_s: float | None, *, as_json: bool) -> None:
    """Costs as the result of a command, with the time that was measured for one crop; None = none was."""
    if as_json:
        print_json({"pictures": costs, "seconds_per_crop": crop_s})
        return
    for cost in costs:
        print_text(printable(cost_line(cost, crop_s)))
    if crop_s is not None:
        print_text(f"measured: {_seconds(crop_s)} a crop in the encoder; the tokens are read after that")


def _amount(cost: dict[str, int], crop_s: float | None) -> str:
    amount = f"{cost['crops']} crops, {cost['tokens']:,} tokens"
    return amount if crop_s is None else f"{amount}, {_seconds(cost['crops'] * crop_s)}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
