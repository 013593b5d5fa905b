"""Which runner answers: the CPU is everybody's, and a refusal names the option that asked for PyTorch."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

import phi4
from phi4 import registry
from phi4.checkpoint import open_checkpoint
from phi4.errors import InvalidRequest, MissingExtra
from phi4.onnx.building import ExportOptions, export_package
from phi4.registry import find_form
from phi4.testing.tiny import write_tiny_checkpoint


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a package inside."""
    folder = tmp_path_factory.mktemp("forms") / "tiny"
    write_tiny_checkpoint(folder, "mini", max_positions=512)
    export_package(open_checkpoint(folder), folder / "onnx", ExportOptions("fp32"))
    return folder


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the base install."""
    real = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> Any:
        return None if name == "torch" else real(name, package)

    monkeypatch.setattr(registry.importlib.util, "find_spec", find)


@pytest.mark.parametrize("options", [{}, {"device": "cpu"}, {"provider": "cpu"}])
def test_package_answers_on_the_cpu_where_there_is_no_torch(
    options: dict[str, str], both: Path, no_torch: None
) -> None:
    for folder in (both, both / "onnx"):
        model = phi4.load(folder, **options)  # type: ignore[arg-type]
        assert (model.info.name, model.info.device) == ("onnx", "cpu")
        assert model.chat("hello", max_new_tokens=2).usage.completion_tokens == 2


def test_checkpoint_alone_is_served_by_torch_on_the_cpu(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path, "mini", max_positions=512)
    assert find_form(tmp_path, device="cpu") == ("torch", tmp_path)
    assert find_form("owner/name", device="cpu")[0] == "torch"


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"runner": "torch"}, "runner 'torch'"),
        ({"dtype": "float32"}, "dtype 'float32'"),
        ({"device": "cuda:1", "attention": "sdpa"}, "device 'cuda:1'"),
        ({"device": "cpu", "attention": "sdpa"}, "attention 'sdpa'"),
    ],
)
def test_package_names_the_option_that_asks_for_torch(
    options: dict[str, Any], names: str, both: Path
) -> None:
    assert find_form(both, **options) == ("torch", both)
    says = f"{names} asks for PyTorch, which cannot serve one; leave it out"
    with pytest.raises(InvalidRequest, match=says):
        find_form(both / "onnx", **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"runner": "torch"}, "the torch runner needs torch"),
        ({"dtype": "float32"}, "the torch runner, which dtype 'float32' asks for, needs torch"),
        ({"device": "cuda"}, "the torch runner, which device 'cuda' asks for, needs torch"),
    ],
)
def test_missing_torch_is_told_with_both_ways_out(
    options: dict[str, str], says: str, both: Path, no_torch: None
) -> None:
    with pytest.raises(MissingExtra, match=says) as refused:
        phi4.load(both, **options)  # type: ignore[arg-type]
    for way in ("pip install '.[torch]'", "phi4 export MODEL --out DIR", "pip install '.[export]'"):
        assert way in str(refused.value)


def test_model_of_the_hub_names_the_export_too(no_torch: None) -> None:
    with pytest.raises(MissingExtra, match="phi4 export MODEL --out DIR"):
        phi4.load("owner/name")
