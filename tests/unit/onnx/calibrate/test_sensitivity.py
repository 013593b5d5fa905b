"""What a layer loses alone is measured as if its weights had been written back into the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from phi4.checkpoint import Checkpoint
from phi4.errors import InvalidRequest
from phi4.onnx.build.linear import Precision
from phi4.onnx.build.options import ExportOptions, layer_shapes
from phi4.onnx.build.quantise import dequantise_blocks, quantise_blocks
from phi4.onnx.calibrate.divergence import compare_heads
from phi4.onnx.calibrate.measuring import first_rows, measure_layers, mixed_layers
from phi4.onnx.calibrate.mixed import decoder_bytes, eight_bits
from phi4.onnx.calibrate.rows import CalibrationRow
from phi4.onnx.calibrate.sensitivity import sensitivity
from phi4.onnx.calibrate.walk import DecoderWeights, LayerWeights, final_states
from phi4.onnx.session import SessionChoice
from phi4.types import ModelInputs

CHOICE = SessionChoice(threads=1)
INT4 = Precision("int4", 32)


class Written(DecoderWeights):
    """Weights with one matrix quantised, the adapter of a row added to that."""

    where: tuple[int, str]

    def layer(self, layer: int, adapter: str | None = None) -> LayerWeights:
        found = super().layer(layer, adapter)
        if layer == self.where[0]:
            target, plain = self.where[1], self.matrix(*self.where)
            back = dequantise_blocks(*quantise_blocks(plain, 4, 32), 4, plain.shape[1])
            found[target] = back + (found[target] - plain)
        return found


@pytest.fixture(scope="module")
def found(weights: DecoderWeights, rows: list[CalibrationRow]) -> dict[str, float]:
    measured = sensitivity(weights, rows, INT4, CHOICE)
    return {name: fidelity.nats for name, fidelity in measured.items()}


def test_every_layer_is_measured_in_forward_order(found: dict[str, float], checkpoint: Checkpoint) -> None:
    assert tuple(found) == tuple(layer_shapes(checkpoint.config))
    assert all(value > 1e-6 for value in found.values())


@pytest.mark.parametrize("where", [(0, "self_attn.qkv_proj"), (0, "mlp.down_proj"), (1, "self_attn.o_proj")])
def test_loss_is_that_of_the_model_with_the_matrix_written_back(
    where: tuple[int, str],
    found: dict[str, float],
    checkpoint: Checkpoint,
    weights: DecoderWeights,
    rows: list[CalibrationRow],
) -> None:
    written = Written(checkpoint, checkpoint.config)
    written.where = where
    exact, other = (np.concatenate(final_states(w, rows, CHOICE)) for w in (weights, written))
    expected = compare_heads(weights.head(), exact, {"": other})[""].fidelity.nats
    assert found[f"decoder.layers.{where[0]}.{where[1]}"] == pytest.approx(expected, rel=0.02)


def test_layers_measured_a_few_at_a_time_lose_the_same(
    found: dict[str, float], weights: DecoderWeights, rows: list[CalibrationRow]
) -> None:
    parts: dict[str, float] = {}
    count = weights.config.num_hidden_layers
    for layer in range(count):
        part = sensitivity(weights, rows, INT4, CHOICE, range(layer, layer + 1))
        assert len(part) == 4
        parts |= {name: fidelity.nats for name, fidelity in part.items()}
    assert tuple(parts) == tuple(found)
    np.testing.assert_allclose(list(parts.values()), list(found.values()), rtol=1e-3)


def test_eight_bits_lose_far_less_than_four(
    found: dict[str, float], weights: DecoderWeights, rows: list[CalibrationRow]
) -> None:
    fine = sensitivity(weights, rows, replace(INT4, kind="int8"), CHOICE)
    for name, fidelity in fine.items():
        assert fidelity.nats < 0.05 * found[name], name


def test_layers_for_eight_bits_are_the_ones_that_lose_most(
    checkpoint: Checkpoint, texts: list[ModelInputs]
) -> None:
    options = ExportOptions(block_size=32)
    layers = mixed_layers(checkpoint, options, texts, 25)
    assert 0 < len(layers) < len(layer_shapes(checkpoint.config)) and set(layers.values()) == {"int8"}
    measured = measure_layers(checkpoint, options, first_rows(texts, 512))
    losses = {name: fidelity.nats for name, fidelity in measured.items()}
    more = decoder_bytes(checkpoint.config, 32) // 4
    assert tuple(layers) == eight_bits(losses, checkpoint.config, 32, more)
    assert mixed_layers(checkpoint, options, texts, 25) == layers
    assert len(mixed_layers(checkpoint, options, texts, 100)) > len(layers)


@pytest.mark.parametrize(
    ("options", "percent", "words"),
    [
        (ExportOptions("int8"), 10.0, "the others must have 4; choose precision int4"),
        (ExportOptions(), 0.0, "0.0 percent more bytes .* must be above 0"),
        (ExportOptions(), 101.0, "must be above 0, up to 100"),
    ],
)
def test_shares_and_precisions_that_make_no_sense_are_refused(
    options: ExportOptions, percent: float, words: str, checkpoint: Checkpoint, texts: list[ModelInputs]
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        mixed_layers(checkpoint, options, texts, percent)


def test_first_rows_are_as_many_as_are_needed(texts: list[ModelInputs]) -> None:
    lengths = [len(one.token_ids) for one in texts]
    assert list(first_rows(texts, 1)) == texts[:1]
    assert list(first_rows(texts, sum(lengths[:2]))) == texts[:2]
    assert list(first_rows(texts, 10**6)) == texts and list(first_rows([], 5)) == []
