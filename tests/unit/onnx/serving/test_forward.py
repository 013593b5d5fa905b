"""Adapters of a user's own, and the decoder's second form for prompts."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phi4.checkpoint import LoadedAdapter, adapter_shapes, open_checkpoint
from phi4.configs import AdapterConfig, Phi4Config
from phi4.engine.runner import Draw, Row, SequenceSpec, StepPlan, TextPiece
from phi4.errors import InvalidRequest, OutOfMemory
from phi4.onnx import OnnxPackage, open_package
from phi4.onnx.build.network.linear import Precision
from phi4.onnx.machine.memory import USABLE_SHARE
from phi4.onnx.opening import check_options, open_ort_runner
from phi4.onnx.serving import binding, session
from phi4.onnx.serving import runner as runner_module
from phi4.onnx.serving.forward import MIN_PREFILL_TOKENS
from phi4.onnx.serving.runner import OrtRunner
from phi4.onnx.serving.session import SessionChoice
from phi4.processing.tiles import tile_image
from phi4.shapes import FloatArray
from phi4.testing.media import ramp_picture
from phi4.testing.tiny import tiny_tensors, write_tiny_checkpoint

ONE = SessionChoice(threads=1)
IDS = np.random.default_rng(3).integers(0, 256, 2 * MIN_PREFILL_TOKENS)


def logprobs(runner: OrtRunner, adapters: tuple[str, ...] = (), count: int = len(IDS)) -> FloatArray:
    """`[V]` after the first `count` ids fed at once."""
    slot = runner.open(SequenceSpec(adapters, "short", 100))
    result = runner.step(StepPlan((Row(slot, (TextPiece(IDS[:count]),), Draw(num_top=320)),))).rows[0]
    runner.close(slot)
    return result.top_logprobs[0][np.argsort(result.top_ids[0])]


@pytest.fixture(scope="module")
def vision_as_mine(tiny: Phi4Config) -> LoadedAdapter:
    """The model's own picture adapter under another name."""
    adapter = replace(tiny.adapter("vision"), name="mine")
    renamed = {
        name.replace(".vision.", ".mine."): values
        for name, values in tiny_tensors(tiny)
        if ".lora_" in name and ".vision." in name
    }
    return LoadedAdapter(adapter, renamed)


def test_users_adapter_acts_as_one_inside_the_graph(
    tiny_package: OnnxPackage, vision_as_mine: LoadedAdapter
) -> None:
    runner = OrtRunner(tiny_package, ONE, adapter=vision_as_mine)
    inside, own = logprobs(runner, ("vision",)), logprobs(runner, ("mine",))
    assert np.abs(inside - logprobs(runner)).max() > 0.1
    np.testing.assert_allclose(own, inside, atol=2e-5)
    both = logprobs(runner, ("speech", "vision"))
    np.testing.assert_allclose(logprobs(runner, ("speech", "mine")), both, atol=2e-5)


def test_each_sequence_uses_the_adapter_it_names_of_several(
    tiny: Phi4Config, tiny_package: OnnxPackage, vision_as_mine: LoadedAdapter
) -> None:
    other = AdapterConfig("other", 3, 6)  # of another rank, so that what is bound changes its shape
    random = np.random.default_rng(1)
    shapes = adapter_shapes(tiny.decoder, other)
    tensors = {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    second = LoadedAdapter(other, tensors)
    both = OrtRunner(tiny_package, ONE, adapter=(vision_as_mine, second))
    alone = {"mine": OrtRunner(tiny_package, ONE, adapter=vision_as_mine)}
    alone["other"] = OrtRunner(tiny_package, ONE, adapter=second)
    assert set(both.info.adapters) >= {"mine", "other"}
    for name in ("mine", "other", "other", "mine"):
        np.testing.assert_array_equal(logprobs(both, (name,)), logprobs(alone[name], (name,)))
        np.testing.assert_array_equal(logprobs(both), logprobs(alone[name]))


@pytest.mark.parametrize("target", ["self_attn.qkv_proj", "mlp.down_proj"])
def test_layers_an_adapter_does_not_act_on_stay_as_they_are(
    tiny_package: OnnxPackage, vision_as_mine: LoadedAdapter, target: str
) -> None:
    some = replace(vision_as_mine.config, target_modules=(target,))
    kept = {name: values for name, values in vision_as_mine.tensors.items() if f".{target}." in name}
    zeroed = {
        name: values if f".{target}." in name else np.zeros_like(values)
        for name, values in vision_as_mine.tensors.items()
    }
    left = OrtRunner(tiny_package, ONE, adapter=LoadedAdapter(some, kept))
    right = OrtRunner(tiny_package, ONE, adapter=replace(vision_as_mine, tensors=zeroed))
    np.testing.assert_allclose(logprobs(left, ("mine",)), logprobs(right, ("mine",)), atol=2e-5)
    assert np.abs(logprobs(left, ("mine",)) - logprobs(left)).max() > 1e-2


def test_package_without_a_slot_refuses_an_adapter_and_serves_without(
    tiny: Phi4Config,
    tiny_package: OnnxPackage,
    vision_as_mine: LoadedAdapter,
    tmp_path: Path,
    write_package: Any,
) -> None:
    folder = write_package(tmp_path / "p", tiny, dict(tiny_tensors(tiny)), user_slot=False)
    package = open_package(folder)
    with pytest.raises(InvalidRequest, match=r"without a slot .*'mine' cannot be used"):
        OrtRunner(package, ONE, adapter=vision_as_mine)
    expected = logprobs(OrtRunner(tiny_package, ONE), ("vision",))
    np.testing.assert_allclose(logprobs(OrtRunner(package, ONE), ("vision",)), expected, atol=2e-5)


@pytest.fixture(scope="module")
def two_forms(tiny: Phi4Config, tmp_path_factory: pytest.TempPathFactory, write_package: Any) -> OnnxPackage:
    folder = tmp_path_factory.mktemp("two")
    return open_package(
        write_package(folder / "p", tiny, dict(tiny_tensors(tiny)), prefill=Precision("rows8"))
    )


def test_long_rows_take_the_form_for_prompts_and_short_ones_do_not(
    two_forms: OnnxPackage, tiny_package: OnnxPackage
) -> None:
    two, one = OrtRunner(two_forms, ONE), OrtRunner(tiny_package, ONE)
    short = MIN_PREFILL_TOKENS - 1
    np.testing.assert_array_equal(logprobs(two, count=short), logprobs(one, count=short))
    for adapters in ((), ("speech",)):
        difference = np.abs(logprobs(two, adapters) - logprobs(one, adapters))
        assert 1e-4 < difference.max() < 1.0
    assert two_forms.graphs[:3] == ("decoder", "prefill", "head")


def test_decoder_reads_prompts_where_there_is_no_room_for_their_form_and_that_is_said_once(
    two_forms: OnnxPackage,
    tiny_package: OnnxPackage,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = OrtRunner(tiny_package, ONE)
    needed = two_forms.loaded_bytes("prefill")
    assert needed == two_forms.graph("prefill").with_suffix(".onnx.data").stat().st_size
    reserved = 100 * one.info.bytes_per_token  # what the sequence is still going to write
    enough = reserved + math.ceil(needed / USABLE_SHARE)
    free = [1 << 40]  # the decoder itself fits
    monkeypatch.setattr(runner_module, "free_bytes", lambda: free[0])
    two, roomy = OrtRunner(two_forms, ONE), OrtRunner(two_forms, ONE)
    free[0] = enough - 2
    with caplog.at_level("WARNING", "phi4"):
        for _ in range(2):
            np.testing.assert_array_equal(logprobs(two), logprobs(one))
    (said,) = caplog.messages
    assert said.startswith("prompts are read by the decoder") and "MB are free" in said
    free[0] = enough
    assert np.abs(logprobs(roomy) - logprobs(one)).max() > 1e-4


def test_form_for_prompts_that_runs_out_of_memory_as_it_opens_is_left_alone(
    two_forms: OnnxPackage, tiny_package: OnnxPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = session.open_session

    def full(path: Path, choice: SessionChoice) -> Any:
        if path.stem == "prefill":
            raise OutOfMemory(f"{path}: ran out of memory")
        return real(path, choice)

    monkeypatch.setattr("phi4.onnx.serving.binding.open_session", full)
    two = OrtRunner(two_forms, ONE)
    np.testing.assert_array_equal(logprobs(two), logprobs(OrtRunner(tiny_package, ONE)))


def test_form_for_prompts_fills_the_memory_the_other_goes_on_with(
    two_forms: OnnxPackage, tiny_package: OnnxPackage
) -> None:
    two, one = OrtRunner(two_forms, ONE), OrtRunner(tiny_package, ONE)
    results = []
    for runner in (two, one):
        slot = runner.open(SequenceSpec((), "long", 100))
        for ids in (IDS[:-1], IDS[-1:]):
            row = Row(slot, (TextPiece(ids),), Draw(num_top=320))
            result = runner.step(StepPlan((row,))).rows[0]
        results.append(result.top_logprobs[0][np.argsort(result.top_ids[0])])
    assert 1e-6 < np.abs(results[0] - results[1]).max() < 1.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "abacus"}, "abacus.*cpu"),
        ({"dtype": "bfloat16"}, "dtype 'bfloat16'.*when it is exported.*leave the option out"),
        ({"attention": "flash"}, "attention 'flash'.*leave the option out"),
    ],
)
def test_options_that_cannot_be_had_are_named(options: dict[str, str], words: str) -> None:
    given: dict[str, Any] = {"device": None, "dtype": None, "attention": None} | options
    with pytest.raises(InvalidRequest, match=words):
        check_options(**given)


def test_weights_are_no_package(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path)
    with pytest.raises(InvalidRequest, match=r"safetensors weights.*phi4 export"):
        open_ort_runner(open_checkpoint(tmp_path))


def test_opened_with_modalities_the_encoders_are_there_at_once(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = OrtRunner.__init__.__globals__["open_session"]

    def recording(path: Path, choice: SessionChoice) -> Any:
        opened.append(path.stem)
        return real(path, choice)

    monkeypatch.setattr("phi4.onnx.serving.runner.open_session", recording)
    open_ort_runner(open_package(tiny_folder), device="cpu")
    assert opened == []
    open_ort_runner(open_package(tiny_folder, ("text", "speech")), modalities=("text", "speech"))
    assert opened == ["subsampling", "speech"]


def test_weights_that_do_not_fit_are_refused_before_any_is_opened(
    tiny_package: OnnxPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = sum(tiny_package.loaded_bytes(name) for name in ("head", "decoder"))
    opened: list[Path] = []
    monkeypatch.setattr(binding, "open_session", lambda path, choice: opened.append(path))
    monkeypatch.setattr(runner_module, "free_bytes", lambda: needed)
    with pytest.raises(OutOfMemory, match=r"head and decoder: .* MB of memory are needed"):
        OrtRunner(tiny_package, ONE)
    assert not opened


def test_encoder_that_does_not_fit_any_more_is_refused_and_text_goes_on(
    tiny_package: OnnxPackage, tiny: Phi4Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny.vision is not None
    free = [1 << 40]
    monkeypatch.setattr(runner_module, "free_bytes", lambda: free[0])
    runner = OrtRunner(tiny_package, ONE)
    free[0] = tiny_package.loaded_bytes("vision")
    with pytest.raises(OutOfMemory, match="vision: "):
        runner.encode(tile_image(ramp_picture(60, 50), tiny.vision))
    free[0] = 1 << 40
    assert logprobs(runner).shape == (320,)
