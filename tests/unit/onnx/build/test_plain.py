"""The decoder without branches: who opens it, that it computes the same, and whose weights it reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from phi4.checkpoint import LoadedAdapter
from phi4.configs import AdapterConfig, Phi4Config
from phi4.engine.runner import Draw, Row, SequenceSpec, StepPlan, TextPiece
from phi4.errors import InvalidArtifact
from phi4.onnx import open_package
from phi4.onnx.build.network.linear import Precision
from phi4.onnx.serving import binding
from phi4.onnx.serving.runner import OrtRunner
from phi4.onnx.serving.session import SessionChoice, open_session
from phi4.shapes import FloatArray
from phi4.testing.tiny import tiny_tensors

ONE = SessionChoice(threads=1)
IDS = np.random.default_rng(3).integers(0, 256, 40)  # enough for the form for prompts
USER = AdapterConfig("mine", 3, 6, target_modules=("self_attn.qkv_proj", "mlp.down_proj"))


@pytest.fixture(scope="module")
def text(tiny: Phi4Config) -> Phi4Config:
    return replace(tiny, vision=None, speech=None, adapters=()).with_layout("mini")


@pytest.fixture(scope="module")
def adapter(text: Phi4Config) -> LoadedAdapter:
    tensors = dict(tiny_tensors(replace(text, adapters=(USER,))))
    return LoadedAdapter(USER, {name: values for name, values in tensors.items() if ".lora_" in name})


@pytest.fixture(scope="module")
def both_forms(
    text: Phi4Config, write_package: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "p"
    return write_package(folder, text, dict(tiny_tensors(text)), prefill=Precision("rows8"))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Graphs that sessions were opened of."""
    names: list[str] = []

    def noted(path: Path, choice: SessionChoice) -> onnxruntime.InferenceSession:
        names.append(path.name)
        return open_session(path, choice)

    monkeypatch.setattr(binding, "open_session", noted)
    return names


def logprobs(runner: OrtRunner, count: int, adapters: tuple[str, ...] = ()) -> FloatArray:
    """`[V]` after the first `count` ids fed at once."""
    slot = runner.open(SequenceSpec(adapters, "short", 100))
    result = runner.step(StepPlan((Row(slot, (TextPiece(IDS[:count]),), Draw(num_top=320)),))).rows[0]
    runner.close(slot)
    return result.top_logprobs[0][np.argsort(result.top_ids[0])]


def test_without_an_adapter_the_plain_forms_are_opened(both_forms: Path, opened: list[str]) -> None:
    logprobs(OrtRunner(open_package(both_forms), ONE), 40)
    assert sorted(opened) == ["decoder.plain.onnx", "head.onnx", "prefill.plain.onnx"]


def test_with_an_adapter_the_forms_that_take_one_are_opened(
    both_forms: Path, adapter: LoadedAdapter, opened: list[str]
) -> None:
    runner = OrtRunner(open_package(both_forms), ONE, adapter=adapter)
    assert np.abs(logprobs(runner, 40, ("mine",)) - logprobs(runner, 40)).max() > 1e-2
    assert sorted(opened) == ["decoder.onnx", "head.onnx", "prefill.onnx"]


@pytest.mark.parametrize("count", [1, 7, 40])
def test_plain_forms_compute_what_closed_branches_let_through(
    both_forms: Path, adapter: LoadedAdapter, count: int
) -> None:
    package = open_package(both_forms)
    plain, closed = OrtRunner(package, ONE), OrtRunner(package, ONE, adapter=adapter)
    np.testing.assert_allclose(logprobs(plain, count), logprobs(closed, count), atol=2e-6)


def test_plain_form_is_the_graph_of_a_package_without_a_slot(
    text: Phi4Config, both_forms: Path, write_package: Callable[..., Path], tmp_path: Path
) -> None:
    bare = write_package(
        tmp_path / "bare", text, dict(tiny_tensors(text)), prefill=Precision("rows8"), user_slot=False
    )
    for form in ("decoder", "prefill"):
        left = ir.load(both_forms / f"{form}.plain.onnx").graph
        right = ir.load(bare / f"{form}.onnx").graph
        assert [node.op_type for node in left] == [node.op_type for node in right]
        assert [value.name for value in left.inputs] == [value.name for value in right.inputs]
        assert len(left.initializers) == len(right.initializers)
    assert not list(bare.glob("*.plain.onnx"))


def test_packages_with_adapters_of_their_own_have_no_plain_form(tiny_folder: Path) -> None:
    assert open_package(tiny_folder).plain_graphs == ()
    assert not list(tiny_folder.glob("*.plain.onnx"))


def test_damaged_plain_form_is_refused(both_forms: Path, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    for file in both_forms.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    graph = folder / "decoder.plain.onnx"
    damaged = bytearray(graph.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    graph.write_bytes(damaged)
    with pytest.raises(InvalidArtifact, match=r"decoder\.plain\.onnx"):
        open_package(folder)
