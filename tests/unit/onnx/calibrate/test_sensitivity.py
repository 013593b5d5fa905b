"""What a layer loses alone is measured as if its weights had been written back into the model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phi4.checkpoint import Checkpoint
from phi4.errors import InvalidRequest
from phi4.onnx.build.export import export_package
from phi4.onnx.build.network.linear import Precision
from phi4.onnx.build.options import ExportOptions, layer_shapes
from phi4.onnx.build.unfinished import STATE_NAME
from phi4.onnx.calibrate import measuring
from phi4.onnx.calibrate.divergence import compare_heads
from phi4.onnx.calibrate.measuring import first_rows, measure_in_turns, measure_layers, mixed_layers
from phi4.onnx.calibrate.mixed import decoder_bytes, eight_bits
from phi4.onnx.calibrate.rows import CalibrationRow
from phi4.onnx.calibrate.sensitivity import sensitivity
from phi4.onnx.calibrate.walk import DecoderWeights, LayerWeights, final_states
from phi4.onnx.package.description import read_description
from phi4.onnx.package.quantise import dequantise_blocks, quantise_blocks
from phi4.onnx.serving.session import SessionChoice
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


def test_layers_measured_in_turns_are_kept_and_not_measured_again(
    found: dict[str, float],
    checkpoint: Checkpoint,
    texts: list[ModelInputs],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measuring, "LAYERS_AT_ONCE", 1)
    options = ExportOptions(block_size=32, sensitive=25)
    told: list[tuple[int, int]] = []
    turns = list(
        measure_in_turns(checkpoint, options, texts, progress=lambda done, total: told.append((done, total)))
    )
    assert [set(turn) for turn in turns] == [
        {name for name in found if f".{layer}." in name} for layer in range(len(turns))
    ]
    total = told[-1][1]
    assert told[-1] == (total, total) and [done for done, _ in told] == sorted({done for done, _ in told})
    again: list[tuple[int, int]] = []
    (second,) = measure_in_turns(
        checkpoint, options, texts, turns[0], lambda done, total: again.append((done, total))
    )
    assert second == turns[1] and again == told[len(told) - len(again) :]
    assert not list(measure_in_turns(checkpoint, options, texts, {**turns[0], **turns[1]}))


def test_layers_for_eight_bits_are_the_ones_that_lose_most(
    checkpoint: Checkpoint, texts: list[ModelInputs], tmp_path: Path
) -> None:
    options = ExportOptions(block_size=32, sensitive=25, modalities=("text",))
    measured = measure_layers(checkpoint, options, first_rows(texts, 512))
    losses = {name: fidelity.nats for name, fidelity in measured.items()}
    config = checkpoint.config
    layers = mixed_layers(config, options, losses)
    assert 0 < len(layers) < len(layer_shapes(config)) and set(layers.values()) == {"int8"}
    assert tuple(layers) == eight_bits(losses, config, 32, decoder_bytes(config, 32) // 4)
    assert len(mixed_layers(config, replace(options, sensitive=100), losses)) > len(layers)
    folder = export_package(checkpoint, tmp_path / "p", options, rows=texts)
    assert dict(read_description(folder).layers) == layers


def test_measured_layers_are_not_measured_again_by_an_export_that_goes_on(
    checkpoint: Checkpoint, texts: list[ModelInputs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ExportOptions(block_size=32, sensitive=25, modalities=("text",))
    whole = export_package(checkpoint, tmp_path / "whole", options, rows=texts)
    with monkeypatch.context() as patch:
        patch.setattr(measuring, "LAYERS_AT_ONCE", 1)

        def stop(done: int, total: int) -> None:
            if done == total:  # in the last turn, before anything of it is known
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            export_package(checkpoint, tmp_path / "p", options, rows=texts, measuring=stop)
    kept = json.loads((tmp_path / "p" / STATE_NAME).read_text())["losses"]
    assert {name.split(".")[2] for name in kept} == {"0"}
    told: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(measuring, "LAYERS_AT_ONCE", 1)
        export_package(
            checkpoint, tmp_path / "p", options, rows=texts, measuring=lambda done, total: told.append(done)
        )
    assert len(told) == checkpoint.config.decoder.num_hidden_layers, "one walk, of the second turn"
    assert read_description(tmp_path / "p").layers == read_description(whole).layers


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (ExportOptions("int8", sensitive=10.0), "the others must have 4; choose precision int4"),
        (ExportOptions(sensitive=0.0), "0.0 percent more bytes .* must be above 0"),
        (ExportOptions(sensitive=101.0), "must be above 0, up to 100"),
    ],
)
def test_shares_and_precisions_that_make_no_sense_are_refused(
    options: ExportOptions, words: str, checkpoint: Checkpoint, texts: list[ModelInputs], tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        export_package(checkpoint, tmp_path / "p", options, rows=texts)
    with pytest.raises(InvalidRequest, match="measured on rows; give some"):
        export_package(checkpoint, tmp_path / "p", ExportOptions(sensitive=10.0))
    assert not (tmp_path / "p").exists()


def test_first_rows_are_as_many_as_are_needed(texts: list[ModelInputs]) -> None:
    lengths = [len(one.token_ids) for one in texts]
    assert list(first_rows(texts, 1)) == texts[:1]
    assert list(first_rows(texts, sum(lengths[:2]))) == texts[:2]
    assert list(first_rows(texts, 10**6)) == texts and list(first_rows([], 5)) == []
