"""ONNX Runtime multiplies with the very weights that every method chose."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest

from phi4.onnx.build.network.graph import GraphWriter, save_graph
from phi4.onnx.build.network.linear import Precision, linear
from phi4.onnx.build.options import METHODS, Method
from phi4.onnx.build.weights import WeightSink
from phi4.onnx.calibrate.grams import Grams
from phi4.onnx.calibrate.quantiser import make_quantiser
from phi4.onnx.package.quantise import Quantise, dequantise_blocks
from phi4.onnx.serving.binding import BoundSession
from phi4.onnx.serving.session import SessionChoice
from phi4.shapes import FloatArray

NAME = "decoder.layers.0.mlp.down_proj.weight"
SHAPES = {"whole blocks": (24, 128), "odd K": (12, 97), "K below a block": (8, 7)}


class Known:
    """Gram matrices of inputs that are there already."""

    def __init__(self, inputs: FloatArray, diagonals: bool) -> None:
        self._gram = np.square(inputs).sum(axis=0) if diagonals else inputs.T @ inputs

    def of(self, name: str) -> FloatArray:
        assert f"{name}.weight" == NAME
        return self._gram


def chosen(method: Method, columns: int) -> Quantise:
    if method not in ("weighted", "gptq"):
        return make_quantiser(method)
    random = np.random.default_rng(1)
    inputs = random.standard_normal((400, columns)) @ random.standard_normal((columns, columns))
    return make_quantiser(method, cast(Grams, Known(inputs.astype(np.float32), method == "weighted")))


def multiplied(folder: Path, weight: FloatArray, precision: Precision, x: FloatArray) -> FloatArray:
    path = folder / "layer.onnx"
    with WeightSink(folder / "layer.onnx.data") as sink:
        g = GraphWriter("layer", sink)
        put = g.input("x", np.float32, ("M", weight.shape[1]))
        g.output("y", linear(g, put, NAME, weight, precision), np.float32, ("M", len(weight)))
        model = g.model()
    save_graph(model, path)
    session, found = BoundSession(path, SessionChoice(threads=1)), np.empty((len(x), len(weight)), np.float32)
    session.put("x", x)
    session.take("y", found)
    session.run()
    return found


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("block", [16, 32, 128])
@pytest.mark.parametrize("method", METHODS)
def test_identity_reads_out_what_was_chosen(
    method: Method, block: int, shape: tuple[int, int], tmp_path: Path
) -> None:
    """One value of a row is exact in 8 bits, so rows of the identity lose nothing."""
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    quantise = chosen(method, shape[1])
    expected = dequantise_blocks(*quantise(NAME, weight, 4, block), 4, shape[1])
    identity = np.eye(shape[1], dtype=np.float32)
    found = multiplied(tmp_path, weight, Precision("int4", block, quantise), identity)
    np.testing.assert_allclose(found.T, expected, atol=1e-6)
