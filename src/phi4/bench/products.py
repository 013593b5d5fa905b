"""How fast ONNX Runtime multiplies at each precision: graphs of one linear layer, built for the purpose.

The layer is the one an export writes (`phi4.onnx.build.network.linear`), the session the one the runner
opens. Needs onnx-ir (extra `export`); without it `open_products` says so.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from phi4.bench.limits import SIDE
from phi4.onnx.serving.session import choose_session, open_session

ROWS = 512
"""Rows of activations, as many as a chunk of a prompt has in `OrtRunner`."""
PRODUCTS = {
    "fp32": "MatMul, fp32",
    "int8": "MatMulNBits, 8 bits",
    "int4": "MatMulNBits, 4 bits",
    "rows8": "int8 by rows",
}
"""Precision of the weights -> what the report calls it."""


@contextmanager
def open_products(threads: int) -> Iterator[dict[str, Callable[[], float]]]:
    """Name of the product -> function that runs it once and returns operations a second.

    Args:
        threads: Threads of the sessions.

    Raises:
        MissingExtra: onnx-ir is not installed.
    """
    import phi4.onnx.building  # noqa: F401  # says which extra is missing
    from phi4.onnx.build.network.linear import Kind

    kinds: tuple[Kind, ...] = ("fp32", "int8", "int4", "rows8")
    # Windows keeps a file that is still mapped; it goes with the temporary folder of the system then.
    with tempfile.TemporaryDirectory(prefix="phi4-bench-", ignore_cleanup_errors=True) as folder:
        yield {PRODUCTS[kind]: _timed(_write(Path(folder) / f"{kind}.onnx", kind), threads) for kind in kinds}


def _write(path: Path, kind: str) -> Path:
    from phi4.onnx.build.network.graph import GraphWriter, save_graph
    from phi4.onnx.build.network.linear import Precision, linear
    from phi4.onnx.build.weights import WeightSink

    weight = np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32)
    with WeightSink(path.with_name(f"{path.name}.data")) as sink:
        g = GraphWriter("product", sink)
        x = g.input("x", np.float32, (ROWS, SIDE))
        precision = Precision(kind)  # type: ignore[arg-type]
        g.output("y", linear(g, x, "weight", weight, precision), np.float32, (ROWS, SIDE))
        model = g.model()
    save_graph(model, path)
    return path


def _timed(path: Path, threads: int) -> Callable[[], float]:
    session = open_session(path, choose_session(threads=threads))
    x = np.random.default_rng(1).standard_normal((ROWS, SIDE), np.float32)

    def once() -> float:
        start = time.perf_counter()
        session.run(None, {"x": x})
        return 2 * ROWS * SIDE**2 / (time.perf_counter() - start)

    once()
    return once
