"""What the machine can do and what a model makes of it: limits, speeds, memory, as a table and a picture.

    report = run_bench(Settings("nano", runners=("onnx",)))
    draw(report, Path("bench.svg"))

Models are measured through the `ModelRunner` protocol alone, so every backend is timed by the same code,
several of them in turns within one run. How each number is come by: docs/bench.md.
"""

from __future__ import annotations

from phi4.bench.picture import draw
from phi4.bench.report import Report, Row, table
from phi4.bench.run import run_bench
from phi4.bench.settings import Settings

__all__ = ["Report", "Row", "Settings", "draw", "run_bench", "table"]
