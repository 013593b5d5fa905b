"""Packages of every method hold what was asked for, lose less than rounded ones, and tell their method."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import phi4
from phi4.checkpoint import Checkpoint
from phi4.errors import InvalidArtifact, InvalidRequest
from phi4.onnx import open_package
from phi4.onnx.build.export import export_package
from phi4.onnx.build.options import METHODS, ExportOptions, exported_config, layer_shapes
from phi4.onnx.build.plan import plan_graphs
from phi4.onnx.calibrate import quantiser
from phi4.onnx.calibrate.judging import Reference, judge
from phi4.onnx.calibrate.quantiser import make_quantiser
from phi4.onnx.calibrate.rows import CalibrationRow, make_rows
from phi4.onnx.calibrate.search import best_scales
from phi4.onnx.calibrate.walk import DecoderWeights
from phi4.onnx.package.description import layer_of, layer_precision, read_description
from phi4.onnx.package.quantise import quantise_blocks
from phi4.onnx.report import describe_package
from phi4.onnx.serving.session import SessionChoice
from phi4.types import ModelInputs

CHOICE = SessionChoice(threads=1)
TEXT = ExportOptions(block_size=32, modalities=("text",))
DOWN = "decoder.layers.*.mlp.down_proj"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def ids(config: Any, rows: int, seed: int) -> list[ModelInputs]:
    random = np.random.default_rng(seed)
    return [ModelInputs(random.integers(5, config.decoder.vocab_size, 100)) for _ in range(rows)]


def test_calibrated_packages_lose_less_on_rows_they_have_not_seen(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    config = exported_config(checkpoint.config, TEXT)
    seen, unseen = ids(config, 40, 1), ids(config, 12, 2)
    weights = DecoderWeights(checkpoint, config)
    reference = Reference.of(weights, make_rows(checkpoint, config, unseen, CHOICE), CHOICE)
    nats = {}
    for method in METHODS:
        rows = seen if method in ("weighted", "gptq") else ()
        # A head of 32 bits, so that only the decoder differs.
        options = replace(TEXT, method=method, parts={"head": "fp32"})
        folder = export_package(checkpoint, tmp_path / method, options, rows=rows)
        nats[method] = judge(open_package(folder), reference, CHOICE).nats
    assert nats["search"] < nats["rtn"]
    assert nats["gptq"] < 0.8 * nats["rtn"] and nats["gptq"] < nats["weighted"] < nats["rtn"]


@pytest.mark.parametrize("method", ["search", "weighted", "gptq"])
def test_same_model_and_rows_give_the_same_bytes(
    method: Any, checkpoint: Checkpoint, texts: list[ModelInputs], media: list[ModelInputs], tmp_path: Path
) -> None:
    rows = [*texts, *media] if method != "search" else []
    options = ExportOptions(method=method, block_size=32)
    first, second = (
        contents(export_package(checkpoint, tmp_path / name, options, rows=rows)) for name in ("a", "b")
    )
    assert first == second
    assert read_description(tmp_path / "a").method == method
    model = phi4.load(tmp_path / "a")
    assert model.chat("hello", max_new_tokens=3).usage.completion_tokens == 3


def test_weights_of_four_bits_alone_depend_on_the_method(checkpoint: Checkpoint, tmp_path: Path) -> None:
    rounded, searched = (
        contents(export_package(checkpoint, tmp_path / method, replace(TEXT, method=method)))
        for method in ("rtn", "search")
    )
    differing = {name for name in rounded if rounded[name] != searched[name]}
    # The graphs themselves hold the smallest scales; the head and its table have 8 bits.
    graphs = {"decoder.onnx", "decoder.plain.onnx", "genai.onnx"}
    told = {"phi4_onnx.json", "manifest.json", ".export.json"}
    assert differing - graphs == {"decoder.onnx.data", *told}
    mixed = replace(TEXT, precision="int8", method="search", layers={DOWN: "int4"})
    package = contents(export_package(checkpoint, tmp_path / "mixed", mixed))
    assert package["head.onnx.data"] == rounded["head.onnx.data"]


def test_what_has_no_inputs_to_calibrate_with_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        """Stands for gram matrices nobody may ask for."""

        def of(self, name: str) -> None:
            raise AssertionError(name)

    quantise = make_quantiser("gptq", Refusing())  # type: ignore[arg-type]
    weight = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)
    for name in ("vision.img_projection.0.weight", "decoder.layers.0.mlp.down_proj.lora_A.speech.weight"):
        for left, right in zip(
            quantise(name, weight, 4, 32), quantise_blocks(weight, 4, 32, best_scales), strict=True
        ):
            np.testing.assert_array_equal(left, right)
    eight = quantise("decoder.layers.0.mlp.down_proj.weight", weight, 8, 32)
    np.testing.assert_array_equal(eight[0], quantise_blocks(weight, 8, 32)[0])
    with pytest.raises(AssertionError, match=r"decoder\.layers\.0\.mlp\.down_proj"):
        quantise("decoder.layers.0.mlp.down_proj.weight", weight, 4, 32)
    assert quantiser.make_quantiser("rtn")("x", weight, 4, 32)[0].shape == (8, 2, 16)


def test_decoder_is_walked_through_once(
    checkpoint: Checkpoint, texts: list[ModelInputs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, str | None]] = []
    layer = DecoderWeights.layer

    def counting(self: DecoderWeights, number: int, adapter: str | None = None) -> Any:
        read.append((number, adapter))
        return layer(self, number, adapter)

    monkeypatch.setattr(DecoderWeights, "layer", counting)
    export_package(checkpoint, tmp_path / "p", replace(TEXT, method="gptq", fast=True), rows=texts)
    layers = range(checkpoint.config.decoder.num_hidden_layers)
    assert read == [(number, None) for number in layers]


def test_merged_adapter_is_part_of_what_is_calibrated(
    checkpoint: Checkpoint, media: list[ModelInputs], tmp_path: Path
) -> None:
    options = ExportOptions(method="gptq", block_size=32, merge_adapter="vision")
    package = open_package(export_package(checkpoint, tmp_path / "p", options, rows=media[:1]))
    config = exported_config(checkpoint.config, options)
    rows: list[CalibrationRow] = make_rows(checkpoint, config, media[:1], CHOICE)
    assert rows[0].adapter is None
    reference = Reference.of(DecoderWeights(checkpoint, config, "vision"), rows, CHOICE)
    other = Reference.of(DecoderWeights(checkpoint, config), rows, CHOICE)
    assert judge(package, reference, CHOICE).nats < 0.3 * judge(package, other, CHOICE).nats


@pytest.mark.parametrize(("method", "words"), [("gptq", "needs rows"), ("weighted", "needs rows")])
def test_calibrating_without_rows_is_refused(
    method: Any, words: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match=f"method '{method}' {words} to calibrate with"):
        export_package(checkpoint, tmp_path / "p", ExportOptions(method=method))
    assert not (tmp_path / "p").exists()


def test_rows_without_use_and_unknown_methods_are_refused(
    checkpoint: Checkpoint, texts: list[ModelInputs], tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match="method 'rtn' has no use for rows"):
        export_package(checkpoint, tmp_path / "p", ExportOptions(), rows=texts)
    for method in ("search", "gptq"):
        with pytest.raises(
            InvalidRequest, match=f"method '{method}': chooses 4-bit weights, and .* has none"
        ):
            export_package(checkpoint, tmp_path / "p", ExportOptions("int8", method=method), rows=texts)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="method 'awq': choose one of rtn, search, weighted, gptq"):
        export_package(checkpoint, tmp_path / "p", ExportOptions(method="awq"))  # type: ignore[arg-type]
    assert not (tmp_path / "p").exists()


def test_stopped_export_goes_on_with_the_same_rows_only(
    checkpoint: Checkpoint, texts: list[ModelInputs], tmp_path: Path
) -> None:
    options = replace(TEXT, method="weighted")

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_package(checkpoint, tmp_path / "p", options, stop, texts)
    with pytest.raises(InvalidRequest, match="unfinished export of another model or with other options"):
        export_package(checkpoint, tmp_path / "p", options, rows=texts[:2])
    resumed = contents(export_package(checkpoint, tmp_path / "p", options, rows=texts))
    assert resumed == contents(export_package(checkpoint, tmp_path / "whole", options, rows=texts))


def test_layers_have_the_precision_of_their_own(checkpoint: Checkpoint, tmp_path: Path) -> None:
    options = replace(TEXT, layers={"decoder.layers.0.mlp.down_proj": "fp32", DOWN: "int8"})
    folder = export_package(checkpoint, tmp_path / "p", options)
    description = read_description(folder)
    assert dict(description.layers) == dict(options.layers) and description.precision["decoder"] == "int4"
    (decoder, *_) = plan_graphs(exported_config(checkpoint.config, options), options)
    plain, *_ = plan_graphs(exported_config(checkpoint.config, TEXT), TEXT)
    width, height = checkpoint.config.decoder.target_dims("mlp.down_proj")
    more = width * height * 4 - width * height * 20 // 32
    more += (checkpoint.config.decoder.num_hidden_layers - 1) * width * height // 2
    assert decoder.weight_bytes - plain.weight_bytes == more
    data = (folder / "decoder.onnx.data").stat().st_size
    assert abs(data - decoder.weight_bytes) < 0.1 * data + 2048 * len(decoder.shapes)
    raw = (folder / "decoder.onnx").read_bytes()
    assert b"decoder.layers.1.mlp.down_proj.weight.q8" in raw
    assert b"decoder.layers.1.mlp.gate_up_proj.weight.q4" in raw
    assert b"decoder.layers.0.mlp.down_proj.weight.q" not in raw
    report = describe_package(folder)
    assert not report.problems and report.as_dict()["layers"] == dict(options.layers)
    assert phi4.load(folder).chat("hello", max_new_tokens=2).usage.completion_tokens == 2


def test_adapters_share_the_precision_of_their_layer(checkpoint: Checkpoint) -> None:
    options = ExportOptions("fp16", layers={"decoder.layers.0.*": "fp32"})
    config = exported_config(checkpoint.config, options)
    (decoder, *_) = plan_graphs(config, options)
    stored = {name: decoder._stored(name, shape) for name, shape in decoder.shapes.items()}
    for name, shape in decoder.shapes.items():
        if len(shape) == 2:
            width = 4 if layer_of(name).startswith("decoder.layers.0.") else 2
            assert stored[name] == width * shape[0] * shape[1], name


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (
            {"decoder.layers.99.*": "int8"},
            r"layer 'decoder\.layers\.99\.\*': no layer is called so; names are",
        ),
        ({"mlp.down_proj": "int8"}, "names are decoder.layers.0.self_attn.qkv_proj to"),
        ({DOWN: "int2"}, "precision 'int2': choose one of"),
        ({DOWN: "rows8"}, "precision 'rows8'"),
    ],
)
def test_layers_that_are_not_there_are_refused(
    layers: Any, words: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        export_package(checkpoint, tmp_path / "p", ExportOptions(layers=layers))
    assert not (tmp_path / "p").exists()


def test_first_pattern_that_fits_counts(checkpoint: Checkpoint) -> None:
    layers = {"decoder.layers.0.*": "fp32", "*": "int8"}
    assert layer_precision(layers, "decoder.layers.0.mlp.down_proj") == "fp32"
    assert layer_precision(layers, "decoder.layers.10.mlp.down_proj") == "int8"
    assert layer_precision({}, "decoder.layers.0.mlp.down_proj") is None
    found = ExportOptions(layers=layers).of_layers(checkpoint.config)  # type: ignore[arg-type]
    assert tuple(found) == tuple(layer_shapes(checkpoint.config))


@pytest.mark.parametrize(
    ("tensor", "layer"),
    [
        ("decoder.layers.12.self_attn.qkv_proj.weight", "decoder.layers.12.self_attn.qkv_proj"),
        ("decoder.layers.1.mlp.down_proj.lora_A.speech.weight", "decoder.layers.1.mlp.down_proj"),
        ("decoder.layers.1.input_layernorm.weight", ""),
        ("decoder.embed_tokens.weight", ""),
        ("vision.img_projection.0.weight", ""),
    ],
)
def test_tensors_belong_to_linear_layers_of_the_decoder_or_to_none(tensor: str, layer: str) -> None:
    assert layer_of(tensor) == layer


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("layers", ["x"], "layers is .* must be an object of names"),
        ("layers", {"x": 8}, "layers is .* must be an object of names"),
        ("method", 4, "method is 4, must be a word"),
    ],
)
def test_description_that_cannot_be_is_refused(
    field: str, value: Any, words: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = export_package(checkpoint, tmp_path / "p", replace(TEXT, precision="fp16"))
    where = folder / "phi4_onnx.json"
    raw = json.loads(where.read_text())
    where.write_text(json.dumps(raw | {field: value}))
    with pytest.raises(InvalidArtifact, match=words):
        read_description(folder)
    del raw[field]  # as in packages written before there was one
    where.write_text(json.dumps(raw))
    description = read_description(folder)
    assert description.method == "rtn" and not description.layers
