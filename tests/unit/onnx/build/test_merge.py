"""A merged adapter is the adapter applied: the same numbers, without branch or switch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import phi4
from phi4.checkpoint import Checkpoint, LoadedAdapter, open_checkpoint, save_checkpoint
from phi4.checkpoint.inventory import adapter_shapes
from phi4.checkpoint.keymap import lora_name
from phi4.configs import AdapterConfig
from phi4.engine.runner import Draw, Row, SequenceSpec, StepPlan, TextPiece
from phi4.errors import InvalidRequest
from phi4.onnx import OnnxPackage, open_package
from phi4.onnx.build.export import export_package
from phi4.onnx.build.merge import Merged
from phi4.onnx.build.options import ExportOptions
from phi4.onnx.serving.runner import OrtRunner
from phi4.onnx.serving.session import SessionChoice
from phi4.shapes import FloatArray
from phi4.testing.media import chirp
from phi4.testing.tiny import tiny_config, tiny_tensors, write_tiny_checkpoint, write_tiny_tokenizer

MINE = AdapterConfig("mine", 3, 6.0)
DOWN = "decoder.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The whole tiny model; not to be changed."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_tiny_checkpoint(folder, max_positions=512)
    return open_checkpoint(folder)


@pytest.fixture(scope="module")
def plain(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> OnnxPackage:
    """With its adapters as branches."""
    folder = tmp_path_factory.mktemp("plain") / "p"
    return open_package(export_package(checkpoint, folder, ExportOptions("fp32")))


def mine(checkpoint: Checkpoint) -> LoadedAdapter:
    shapes, random = adapter_shapes(checkpoint.config.decoder, MINE), np.random.default_rng(3)
    return LoadedAdapter(
        MINE, {name: 0.2 * random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    )


def runner_of(package: OnnxPackage, adapter: LoadedAdapter | None = None) -> OrtRunner:
    return OrtRunner(package, SessionChoice(threads=1), adapter=adapter)


def logprobs(runner: OrtRunner, adapters: tuple[str, ...]) -> FloatArray:
    """Log-probabilities `[2, V]` after a prompt and after one token more."""
    ids, found = np.random.default_rng(0).integers(5, 250, 21), []
    slot = runner.open(SequenceSpec(adapters, "short", 32))
    for piece in (ids[:20], ids[20:]):
        plan = StepPlan((Row(slot, (TextPiece(piece),), Draw(num_top=runner.info.vocab_size)),))
        (result,) = runner.step(plan).rows
        by_id = np.empty(runner.info.vocab_size, np.float32)
        by_id[result.top_ids[0]] = result.top_logprobs[0]
        found.append(by_id)
    return np.stack(found)


@pytest.mark.parametrize("name", ["vision", "speech"])
def test_model_with_a_merged_adapter_is_loaded_without_a_warning_that_it_is_missing(
    name: str, checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bare = replace(checkpoint.config, adapters=())
    save_checkpoint(tmp_path / "bare", bare, tiny_tensors(bare), "original")
    write_tiny_tokenizer(tmp_path / "bare", "original")
    with caplog.at_level("WARNING", "phi4"):
        folder = export_package(checkpoint, tmp_path / "p", ExportOptions("fp32", merge_adapter=name))
        assert open_package(folder).merged_adapter == name
        phi4.load(folder)
        assert caplog.text == ""
        # Nothing tells such a package from one whose adapter got lost but what the export wrote down.
        lost = export_package(open_checkpoint(tmp_path / "bare"), tmp_path / "q", ExportOptions("fp32"))
        assert open_package(lost).merged_adapter is None
        phi4.load(lost)
        assert "vision encoder" in caplog.text and "speech encoder" in caplog.text


@pytest.mark.parametrize("name", ["vision", "speech"])
def test_merged_adapter_gives_the_logits_of_the_applied_one(
    name: str, checkpoint: Checkpoint, plain: OnnxPackage, tmp_path: Path
) -> None:
    merged = open_package(
        export_package(checkpoint, tmp_path / "p", ExportOptions("fp32", merge_adapter=name))
    )
    assert merged.adapters == () and merged.parts == plain.parts
    found, applied = logprobs(runner_of(merged), ()), logprobs(runner_of(plain), (name,))
    np.testing.assert_allclose(found, applied, atol=1e-4)
    assert np.abs(found - logprobs(runner_of(plain), ())).max() > 0.5  # the adapter does something


def test_adapter_of_ones_own_goes_on_top_of_a_merged_one(
    checkpoint: Checkpoint, plain: OnnxPackage, tmp_path: Path
) -> None:
    options = ExportOptions("fp32", merge_adapter="speech")
    merged = open_package(export_package(checkpoint, tmp_path / "p", options))
    own = mine(checkpoint)
    found = logprobs(runner_of(merged, own), ("mine",))
    np.testing.assert_allclose(found, logprobs(runner_of(plain, own), ("speech", "mine")), atol=1e-4)


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_merged_weights_are_quantised_as_one_matrix(
    precision: str, checkpoint: Checkpoint, plain: OnnxPackage, tmp_path: Path
) -> None:
    options = ExportOptions(precision, merge_adapter="speech", block_size=16)  # type: ignore[arg-type]
    merged = runner_of(open_package(export_package(checkpoint, tmp_path / "p", options)))
    applied = logprobs(runner_of(plain), ("speech",))
    centred = applied - applied.mean(axis=1, keepdims=True)
    error = np.linalg.norm(logprobs(merged, ()) - applied) / np.linalg.norm(centred)
    assert error < {"int8": 0.1, "fp16": 0.02}[precision]


def test_package_with_a_merged_adapter_hears_without_a_switch(checkpoint: Checkpoint, tmp_path: Path) -> None:
    options = ExportOptions("int8", modalities=("text", "speech"), merge_adapter="speech")
    model = phi4.load(export_package(checkpoint, tmp_path / "p", options))
    answer = model.chat("what?", audio=chirp(0.5), max_new_tokens=4)
    assert answer.adapters == () and answer.usage.completion_tokens == 4
    with pytest.raises(InvalidRequest, match="no adapter named 'speech'"):
        model.generator.runner.open(SequenceSpec(("speech",), "short", 8))


def test_delta_is_the_scaled_product_and_other_tensors_are_untouched(checkpoint: Checkpoint) -> None:
    merged, adapter = Merged(checkpoint, "speech"), checkpoint.config.adapter("speech")
    a, b = (checkpoint.read(lora_name(1, "mlp.down_proj", matrix, "speech")) for matrix in ("A", "B"))
    expected = checkpoint.read(DOWN) + adapter.scale * (b @ a)
    np.testing.assert_allclose(merged.read(DOWN), expected, atol=1e-6)
    for name in ("decoder.norm.weight", "decoder.embed_tokens.weight", "vision.sub_GN"):
        np.testing.assert_array_equal(merged.read(name), checkpoint.read(name))
    np.testing.assert_array_equal(Merged(checkpoint, None).read(DOWN), checkpoint.read(DOWN))


def test_sum_is_taken_in_float32_where_weights_are_stored_in_less(tmp_path: Path) -> None:
    """A small delta on a weight of bfloat16 would be lost if it were rounded back."""
    config = tiny_config(max_positions=512)
    stored = ((name, values.astype(ml_dtypes.bfloat16)) for name, values in tiny_tensors(config))
    save_checkpoint(tmp_path, config, stored)
    write_tiny_tokenizer(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    merged = Merged(checkpoint, "vision").read(DOWN)
    assert merged.dtype == np.float32
    rounded = merged.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert np.abs(rounded - merged).max() > 0
    assert Merged(checkpoint, "vision").read("decoder.norm.weight").dtype == ml_dtypes.bfloat16


def test_layers_the_adapter_does_not_act_on_stay_as_they_are(checkpoint: Checkpoint) -> None:
    config = checkpoint.config
    narrow = replace(config.adapter("vision"), target_modules=("self_attn.o_proj",))
    merged = Merged(replace(checkpoint, config=replace(config, adapters=(narrow,))), "vision")
    np.testing.assert_array_equal(merged.read(DOWN), checkpoint.read(DOWN))
    changed = "decoder.layers.0.self_attn.o_proj.weight"
    assert (merged.read(changed) != checkpoint.read(changed)).any()
