"""Options are judged before a model is looked for, and the report tells what loading really takes."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from phi4.checkpoint import LoadedAdapter, adapter_shapes, describe, open_checkpoint, save_checkpoint
from phi4.checkpoint.inspect import SMALL_MODEL_BYTES, loaded_dtype
from phi4.configs import AdapterConfig
from phi4.engine.runner import Draw, ModelRunner, Row, SequenceSpec, StepPlan, TextPiece
from phi4.errors import InvalidRequest
from phi4.shapes import FloatArray
from phi4.testing.tiny import tiny_config, tiny_tensors
from phi4.torch_runner.opening import check_options, open_torch_runner
from phi4.torch_runner.runner import TorchRunner

CONFIG = tiny_config(max_positions=512)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, stored in bf16 as released ones are."""
    target = tmp_path_factory.mktemp("bf16")
    tensors = [(name, values.astype(ml_dtypes.bfloat16)) for name, values in tiny_tensors(CONFIG)]
    save_checkpoint(target, CONFIG, tensors, "original")
    return target


@pytest.mark.parametrize(
    ("device", "dtype", "attention", "words"),
    [
        ("abacus", None, None, "abacus"),
        ("meta", None, None, "device 'meta' holds no values.*'cpu'"),
        ("cpu", "int3", None, "int3.*float32"),
        ("cpu", None, "magic", "magic.*sdpa"),
    ],
)
def test_options_that_cannot_be_had_are_named(
    device: str, dtype: str | None, attention: str | None, words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        check_options(device=device, dtype=dtype, attention=attention)


def test_options_that_can_be_had_pass() -> None:
    for dtype in (None, "float32", "bfloat16", "float16"):
        check_options(device="cpu", dtype=dtype, attention="eager")


def test_a_small_model_is_computed_in_fp32_and_a_large_one_in_bf16() -> None:
    assert loaded_dtype(SMALL_MODEL_BYTES - 1) == "float32"
    assert loaded_dtype(SMALL_MODEL_BYTES) == "bfloat16"


def test_each_sequence_uses_the_adapter_it_names_of_several(folder: Path) -> None:
    random = np.random.default_rng(0)
    own = []
    for name, rank in (("mine", 2), ("other", 3)):
        config = AdapterConfig(name, rank, 4)
        shapes = adapter_shapes(CONFIG.decoder, config).items()
        tensors = {key: random.normal(0, 0.3, shape).astype(np.float32) for key, shape in shapes}
        own.append(LoadedAdapter(config, tensors))
    both, *alone = (
        open_torch_runner(open_checkpoint(folder), modalities=("text",), device="cpu", adapter=given)
        for given in (own, *own)
    )
    for one, runner in zip(own, alone, strict=True):
        for adapters in ((one.config.name,), ()):
            np.testing.assert_array_equal(top(both, adapters), top(runner, adapters))
    assert np.abs(top(both, ("mine",)) - top(both, ("other",))).max() > 1e-3


def top(runner: ModelRunner, adapters: tuple[str, ...]) -> FloatArray:
    """The best log-probabilities after a short prompt."""
    slot = runner.open(SequenceSpec(adapters, "short", 16))
    row = Row(slot, (TextPiece(np.array([5, 6, 7])),), Draw(num_top=20))
    return runner.step(StepPlan((row,))).rows[0].top_logprobs[0]


@pytest.mark.parametrize(("limit", "dtype", "growth"), [(1 << 30, "float32", 2), (1, "bfloat16", 1)])
def test_the_report_states_the_bytes_that_loading_takes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, limit: int, dtype: str, growth: int
) -> None:
    monkeypatch.setattr("phi4.checkpoint.inspect.SMALL_MODEL_BYTES", limit)
    report = describe(folder)
    for parts in (("text",), ("text", "speech"), CONFIG.modalities):
        runner = open_torch_runner(open_checkpoint(folder), modalities=parts, device="cpu")
        assert isinstance(runner, TorchRunner)
        held = sum(value.numel() * value.element_size() for value in runner.model.state_dict().values())
        assert held == report.loaded_bytes(parts) == growth * report.weight_bytes(parts)
        assert runner.info.dtype == report.loaded_dtype == dtype
        assert runner.info.bytes_per_token == report.kv_bytes_per_token
        assert report.memory_bytes(parts, 10) == held + 10 * runner.info.bytes_per_token
