"""A walk layer by layer comes where the whole decoder does, and shows what its linear layers are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phi4.checkpoint import Checkpoint, open_checkpoint
from phi4.configs import Phi4Config
from phi4.errors import InvalidRequest
from phi4.onnx import open_package
from phi4.onnx.build.export import export_package
from phi4.onnx.build.options import ExportOptions, exported_config, layer_shapes
from phi4.onnx.calibrate.grams import Grams
from phi4.onnx.calibrate.judging import Reference, judge
from phi4.onnx.calibrate.rows import CalibrationRow, _judged, digest, make_rows
from phi4.onnx.calibrate.walk import DecoderWeights, LayerGraph, Walk, final_states
from phi4.onnx.serving.session import SessionChoice
from phi4.shapes import FloatArray
from phi4.testing.tiny import write_tiny_checkpoint
from phi4.types import MediaSpan, ModelInputs

CHOICE = SessionChoice(threads=1)


def test_states_are_those_of_an_exact_package_for_text_and_all_media(
    checkpoint: Checkpoint, weights: DecoderWeights, rows: list[CalibrationRow], tmp_path: Path
) -> None:
    assert [row.adapter for row in rows[-4:]] == [None, "vision", "speech", "vision"]
    package = open_package(export_package(checkpoint, tmp_path / "p", ExportOptions("fp32")))
    found = judge(package, Reference.of(weights, rows, CHOICE), CHOICE)
    assert found.nats < 1e-6 and found.worst_nats < 1e-5 and found.agreement > 0.99
    assert found.positions == sum(len(row.judged) for row in rows)


def test_quantised_package_is_found_to_differ(
    checkpoint: Checkpoint, weights: DecoderWeights, rows: list[CalibrationRow], tmp_path: Path
) -> None:
    reference = Reference.of(weights, rows, CHOICE)
    found = {}
    for name in ("int8", "int4"):
        folder = export_package(checkpoint, tmp_path / name, ExportOptions(name, block_size=32))  # type: ignore[arg-type]
        found[name] = judge(open_package(folder), reference, CHOICE)
    assert 1e-6 < found["int8"].nats < 0.2 * found["int4"].nats
    assert found["int8"].agreement > found["int4"].agreement


def test_row_with_an_adapter_goes_another_way(
    checkpoint: Checkpoint, weights: DecoderWeights, rows: list[CalibrationRow]
) -> None:
    seen = next(row for row in rows if row.adapter == "vision")
    bare = CalibrationRow(seen.token_ids, seen.media, None, seen.judged)
    with_it, without = final_states(weights, [seen, bare], CHOICE)
    assert np.linalg.norm(with_it - without) > 0.05 * np.linalg.norm(without)
    # Merged for good, the row needs none of its own.
    merged = DecoderWeights(checkpoint, checkpoint.config, "vision")
    (as_merged,) = final_states(merged, [bare], CHOICE)
    np.testing.assert_allclose(as_merged, with_it, atol=1e-4)


def test_sequence_in_the_long_regime_is_turned_by_its_own_factors(tmp_path: Path) -> None:
    config = write_tiny_checkpoint(tmp_path / "m", "mini", original_max=16, max_positions=512)
    checkpoint = open_checkpoint(tmp_path / "m")
    ids = np.random.default_rng(0).integers(5, 250, 30)
    rows = make_rows(checkpoint, config, [ModelInputs(ids[:16]), ModelInputs(ids)], CHOICE)
    reference = Reference.of(DecoderWeights(checkpoint, config), rows, CHOICE)
    package = open_package(export_package(checkpoint, tmp_path / "p", ExportOptions("fp32")))
    assert judge(package, reference, CHOICE).worst_nats < 1e-5
    short, long = reference.states
    assert np.abs(short - long[:16]).max() > 1e-3


def test_what_is_shown_is_what_the_matrices_multiply(
    weights: DecoderWeights, config: Phi4Config, rows: list[CalibrationRow]
) -> None:
    decoder, shown = config.decoder, {}
    hidden = rows[0].embedded(weights.table())
    layer = weights.layer(0)
    behind = LayerGraph(decoder, CHOICE).run(
        hidden, layer, lambda target, x: shown.update({target: x.copy()})
    )
    mean = np.square(hidden).mean(-1, keepdims=True) + decoder.rms_norm_eps
    normed = hidden / np.sqrt(mean) * layer["input_layernorm"]
    np.testing.assert_allclose(shown["self_attn.qkv_proj"], normed, atol=1e-5)
    between = hidden + shown["self_attn.o_proj"] @ layer["self_attn.o_proj"].T
    mean = np.square(between).mean(-1, keepdims=True) + decoder.rms_norm_eps
    normed = between / np.sqrt(mean) * layer["post_attention_layernorm"]
    np.testing.assert_allclose(shown["mlp.gate_up_proj"], normed, atol=1e-4)
    gate, value = np.split(shown["mlp.gate_up_proj"] @ layer["mlp.gate_up_proj"].T, 2, axis=1)
    np.testing.assert_allclose(shown["mlp.down_proj"], value * gate / (1 + np.exp(-gate)), atol=1e-4)
    np.testing.assert_allclose(behind, between + shown["mlp.down_proj"] @ layer["mlp.down_proj"].T, atol=1e-4)


def test_gram_matrices_are_those_of_all_rows_in_any_order(
    weights: DecoderWeights, config: Phi4Config, rows: list[CalibrationRow]
) -> None:
    begun: list[Walk] = []

    def start() -> Walk:
        begun.append(Walk(weights, rows, CHOICE))
        return begun[-1]

    expected: dict[str, FloatArray] = {}
    walk = Walk(weights, rows, CHOICE)
    for layer in range(weights.config.num_hidden_layers):

        def see(target: str, x: FloatArray, layer: int = layer) -> None:
            name = f"decoder.layers.{layer}.{target}"
            expected[name] = expected.get(name, np.float32(0)) + x.T @ x

        walk.advance(see)
    grams = Grams(start)
    for name, gram in expected.items():
        found = grams.of(name)
        np.testing.assert_allclose(found, gram, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(found, found.T, rtol=1e-5)
    assert len(begun) == 1, "layer after layer takes one walk"
    diagonals = Grams(start, diagonals=True)
    for place in ("1.mlp.down_proj", "1.self_attn.qkv_proj", "0.mlp.down_proj"):
        name = f"decoder.layers.{place}"
        np.testing.assert_allclose(diagonals.of(name), np.diagonal(expected[name]), rtol=1e-4)
        np.testing.assert_allclose(grams.of(name), expected[name], rtol=1e-4, atol=1e-3)
    assert set(expected) == set(layer_shapes(config))


def test_positions_that_count_are_those_before_text() -> None:
    ids = np.arange(10)
    assert _judged(ModelInputs(ids)).tolist() == list(range(10))
    held = ModelInputs(ids, spans=(MediaSpan("image", 0, 3, 4),))
    assert _judged(held).tolist() == [0, 1, 6, 7, 8, 9]
    mask = np.zeros(10, np.bool_)
    mask[[0, 8, 9]] = True
    assert _judged(ModelInputs(ids, loss_mask=mask)).tolist() == [7, 8]


def test_rows_that_cannot_be_read_are_refused_with_their_number(
    checkpoint: Checkpoint, media: list[ModelInputs]
) -> None:
    config = checkpoint.config
    wrong = [
        ([], "no text to calibrate with"),
        ([ModelInputs(np.zeros(0, np.int64))], "row 0 .* has 0 tokens, must have 1 to 512"),
        ([ModelInputs(np.array([1])), ModelInputs(np.full(513, 1))], "row 1 .* has 513 tokens"),
        ([ModelInputs(np.array([0, 320]))], "row 0 .* ids outside of 0 to 319"),
        ([ModelInputs(np.array([-1]))], "ids outside"),
    ]
    for inputs, words in wrong:
        with pytest.raises(InvalidRequest, match=words):
            make_rows(checkpoint, config, inputs, CHOICE)
    heard = exported_config(config, ExportOptions(modalities=("text", "speech")))
    with pytest.raises(InvalidRequest, match=r"row 0 .* needs the vision part"):
        make_rows(checkpoint, heard, media, CHOICE)


def test_digest_tells_rows_apart(texts: list[ModelInputs], media: list[ModelInputs]) -> None:
    found = [digest(inputs) for inputs in (texts, texts[:-1], texts[::-1], media, media[:1])]
    assert len(set(found)) == len(found) and digest(texts) == found[0]
