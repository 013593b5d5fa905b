"""ONNX Runtime multiplies with the weights we think we stored, at every precision and shape."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnxruntime
import pytest

from phi4.checkpoint.keymap import lora_name
from phi4.errors import InvalidArtifact
from phi4.onnx.build.network.graph import GraphWriter, save_graph
from phi4.onnx.build.network.linear import (
    SMALL_RANK,
    Kind,
    Precision,
    fitting_block,
    linear,
    stored_as,
    stored_bytes,
)
from phi4.onnx.build.weights import WeightSink
from phi4.onnx.package.quantise import dequantise_blocks, quantise_blocks, quantise_channels
from phi4.shapes import AnyArray, FloatArray

SHAPES = {"whole blocks": (6, 64), "odd K": (5, 33), "K below a block": (3, 7)}
KINDS: tuple[Kind, ...] = ("fp32", "fp16", "int8", "int4", "rows8")
Layer = Callable[..., Callable[[FloatArray], FloatArray]]


def normal(shape: tuple[int, ...], seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def layer(tmp_path: Path) -> Layer:
    """Opens a graph of one linear layer: `layer(weight, precision, bias=None, name=...)`."""

    def build(
        weight: AnyArray, precision: Precision, bias: AnyArray | None = None, name: str = "decoder.w.weight"
    ) -> Callable[[FloatArray], FloatArray]:
        path = tmp_path / "layer.onnx"
        with WeightSink(tmp_path / "layer.onnx.data") as sink:
            g = GraphWriter("layer", sink)
            x = g.input("x", np.float32, ("M", weight.shape[1]))
            y = linear(g, x, name, weight, precision, bias)
            g.output("y", g.op("Identity", y), np.float32, ("M", weight.shape[0]))
            model = g.model()
        save_graph(model, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return lambda x: np.asarray(session.run(None, {"x": x})[0])

    return build


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("block", [16, 32, 128])
@pytest.mark.parametrize("kind", ["int4", "int8"])
def test_blocks_are_multiplied_as_they_are_dequantised(
    layer: Layer, kind: Kind, block: int, shape: tuple[int, int]
) -> None:
    """Rows of the identity read the matrix out: one value of a row is exact in 8 bits, so nothing is lost."""
    weight = normal(shape)
    bits = 4 if kind == "int4" else 8
    expected = dequantise_blocks(*quantise_blocks(weight, bits, block), bits, shape[1])
    read_out = layer(weight, Precision(kind, block))(np.eye(shape[1], dtype=np.float32))
    np.testing.assert_allclose(read_out.T, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["int4", "int8"])
def test_product_of_blocks_equals_the_one_in_float_but_for_rounded_activations(
    layer: Layer, kind: Kind
) -> None:
    weight, x = normal((24, 100)), normal((7, 100), seed=1)
    bits = 4 if kind == "int4" else 8
    expected = x @ dequantise_blocks(*quantise_blocks(weight, bits, 32), bits, 100).T
    error = np.linalg.norm(layer(weight, Precision(kind, 32))(x) - expected) / np.linalg.norm(expected)
    assert error < 0.012


@pytest.mark.parametrize("kind", ["int4", "int8", "rows8"])
def test_weight_of_zeros_gives_zeros(layer: Layer, kind: Kind) -> None:
    weight = normal((4, 32))
    weight[2] = 0
    output = layer(weight, Precision(kind, 16))(normal((3, 32), seed=1))
    assert not output[:, 2].any() and np.isfinite(output).all() and output[:, 0].all()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_channels_are_multiplied_as_they_are_dequantised(layer: Layer, shape: tuple[int, int]) -> None:
    weight = normal(shape)
    quantised, scales = quantise_channels(weight)
    read_out = layer(weight, Precision("rows8"))(np.eye(shape[1], dtype=np.float32))
    np.testing.assert_allclose(read_out.T, quantised * scales[:, None], atol=1e-6)


def test_massive_activations_of_one_row_spoil_no_other(layer: Layer) -> None:
    """One scale for all rows would leave the others an error of 0.5 and more."""
    weight, x = normal((64, 256)), normal((32, 256), seed=1)
    x[5, :4] *= 300
    expected = x @ weight.T
    output = layer(weight, Precision("rows8"))(x)
    error = np.linalg.norm(output - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert error.max() < 0.03, error


def test_rows_of_zeros_and_of_any_size_are_multiplied_alike(layer: Layer) -> None:
    weight, x = normal((8, 32)), normal((1, 32), seed=1)
    rows = np.concatenate([x, 0 * x, np.float32(1e-12) * x, np.float32(1e6) * x, -x])
    one, none, small, large, turned = layer(weight, Precision("rows8"))(rows)
    assert not none.any()
    np.testing.assert_allclose(small * np.float32(1e12), one, rtol=1e-5)
    np.testing.assert_allclose(large / np.float32(1e6), one, rtol=1e-5)
    np.testing.assert_allclose(-turned, one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_bias_is_added_in_float_at_every_precision(layer: Layer, kind: Kind) -> None:
    weight, bias, x = normal((6, 32)), 100 * normal((6,), seed=2), normal((3, 32), seed=1)
    with_bias = layer(weight, Precision(kind, 32), bias)(x)
    np.testing.assert_allclose(
        with_bias - layer(weight, Precision(kind, 32))(x), bias[None].repeat(3, 0), atol=1e-4
    )


@pytest.mark.parametrize(("kind", "most"), [("fp32", 1e-6), ("fp16", 5e-4)])
def test_float_weights_are_as_exact_as_their_type(layer: Layer, kind: Kind, most: float) -> None:
    weight, x = normal((16, 48)).astype(ml_dtypes.bfloat16), normal((5, 48), seed=1)
    expected = x @ weight.astype(np.float32).T
    assert np.linalg.norm(layer(weight, Precision(kind))(x) - expected) < most * np.linalg.norm(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_stored_bytes_are_those_on_disk(layer: Layer, tmp_path: Path, kind: Kind) -> None:
    weight = normal((96, 300))
    layer(weight, Precision(kind, 32))
    written = (tmp_path / "layer.onnx.data").stat().st_size
    gap = 4096 if kind in ("int4", "int8") else 0  # scales begin at a page
    stored = stored_bytes(weight.shape, Precision(kind, 32))
    assert (
        stored - 4 * 96 <= written <= stored + gap
    )  # scales of channels are few enough to stand in the graph


@pytest.mark.parametrize("kind", ["int4", "int8", "rows8"])
def test_small_adapters_are_not_quantised_and_large_ones_are(kind: Kind) -> None:
    precision = Precision(kind, 64)
    for matrix in ("A", "B"):
        name = lora_name(3, "mlp.down_proj", matrix, "speech")
        for rank, stays in ((SMALL_RANK, True), (SMALL_RANK + 1, False)):
            shape = (rank, 4096) if matrix == "A" else (3072, rank)
            assert stored_as(name, shape, precision) == (Precision("fp32") if stays else precision)
    assert stored_as("decoder.layers.3.mlp.down_proj.weight", (16, 16), precision) == precision
    assert stored_as(lora_name(0, "mlp.down_proj", "A", "x"), (4, 64), Precision("fp16")).kind == "fp16"


def test_small_adapter_is_multiplied_in_float(layer: Layer) -> None:
    weight, x = normal((4, 64)), normal((3, 64), seed=1)
    output = layer(weight, Precision("int4", 16), name=lora_name(0, "mlp.down_proj", "A", "mine"))(x)
    np.testing.assert_allclose(output, x @ weight.T, atol=1e-5)


def test_blocks_of_narrow_inputs_are_no_longer_than_they_need() -> None:
    blocks = {
        columns: fitting_block(Precision("int4", 128), columns).block_size for columns in (4, 40, 65, 320)
    }
    assert blocks == {4: 16, 40: 64, 65: 128, 320: 128}


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_not_finite_are_refused_by_name(layer: Layer, kind: Kind) -> None:
    weight = normal((4, 32))
    weight[1, 3] = np.nan
    with pytest.raises(
        InvalidArtifact, match=r"tensor decoder\.w\.weight: .* not finite .* fetch or train|another"
    ):
        layer(weight, Precision(kind, 16))


def test_weights_too_large_for_fp16_are_refused_with_what_to_do(layer: Layer) -> None:
    with pytest.raises(InvalidArtifact, match="not finite as float16; give its part another precision"):
        layer(np.full((2, 16), 1e5, np.float32), Precision("fp16"))
    layer(np.full((2, 16), 1e5, np.float32), Precision("int8", 16))
