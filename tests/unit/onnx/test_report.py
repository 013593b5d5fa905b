"""The report on a package tells what its files say and what is wrong with them, without opening a session."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phi4.checkpoint import open_checkpoint, write_manifest
from phi4.cli.main import main
from phi4.configs import Phi4Config
from phi4.errors import InvalidArtifact, InvalidConfig
from phi4.onnx import open_package
from phi4.onnx.build.export import export_package
from phi4.onnx.build.options import ExportOptions
from phi4.onnx.package import checking
from phi4.onnx.report import describe_package
from phi4.onnx.serving.runner import OrtRunner
from phi4.onnx.serving.session import SessionChoice
from phi4.testing.tiny import write_tiny_checkpoint

MIXED = ExportOptions("int8", {"vision": "fp16"}, fast=True, context=100)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Phi4Config:
    return write_tiny_checkpoint(tmp_path_factory.getbasetemp() / "report-model", max_positions=512)


@pytest.fixture(scope="module")
def whole(config: Phi4Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package; not to be changed."""
    checkpoint = open_checkpoint(tmp_path_factory.getbasetemp() / "report-model")
    return export_package(checkpoint, tmp_path_factory.mktemp("whole") / "p", MIXED)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "p"))


def change_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


def test_graphs_are_told_with_precision_and_size(whole: Path) -> None:
    report = describe_package(whole)
    told = {graph.name: graph.precision for graph in report.graphs}
    assert told == {
        "decoder": "int8",
        "prefill": "int8 per channel",
        "head": "int8",
        "vision": "fp16",
        "subsampling": "int8 per channel",
        "speech": "int8 per channel",
    }
    for graph in report.graphs:
        assert graph.graph_bytes == (whole / f"{graph.name}.onnx").stat().st_size > 0
        assert graph.weight_bytes == (whole / f"{graph.name}.onnx.data").stat().st_size > 0
    listed = json.loads((whole / "manifest.json").read_text())["files"]
    assert report.total_bytes == sum(file["bytes"] for file in listed.values())
    assert report.problems == ()


def test_limits_are_those_the_runner_has(whole: Path) -> None:
    report, info = describe_package(whole), OrtRunner(open_package(whole), SessionChoice(threads=1)).info
    assert report.context_tokens == info.max_context_tokens == 100
    assert report.kv_bytes_per_token == info.bytes_per_token
    assert report.config.modalities == info.modalities
    assert tuple(adapter.name for adapter in report.config.adapters) == info.adapters


def test_memory_counts_the_graphs_of_a_modality_widened_fp16_and_the_cache(whole: Path) -> None:
    report = describe_package(whole)
    weights = {graph.name: graph.weight_bytes for graph in report.graphs}
    cache = 100 * report.kv_bytes_per_token  # the context is shorter than the usual example
    text = weights["decoder"] + weights["prefill"] + weights["head"] + cache
    assert report.memory_bytes(("text",)) == text
    assert report.memory_bytes(("text", "vision")) == text + 2 * weights["vision"]
    assert report.memory_bytes(("text", "speech")) == text + weights["subsampling"] + weights["speech"]
    assert report.modality_sets()[-1] == ("text", "vision", "speech")


def test_report_as_json_is_plain_and_whole(whole: Path) -> None:
    raw = json.loads(json.dumps(describe_package(whole).as_dict()))
    assert raw["form"] == "onnx" and raw["precision"]["vision"] == "fp16"
    assert [graph["name"] for graph in raw["graphs"]][:3] == ["decoder", "prefill", "head"]
    assert (raw["context_tokens"], raw["model_context_tokens"], raw["memory_tokens"]) == (100, 512, 100)
    assert raw["adapters"][0]["name"] == "vision" and raw["user_slot"] and raw["prefill"]
    assert set(raw["memory_bytes"]) == {"text", "text+vision", "text+speech", "text+vision+speech"}


STRANGER = {"bytes": 1, "sha256": "0" * 64}
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "graph gone": (lambda p: (p / "vision.onnx").unlink(), "vision.onnx is missing"),
    "weights gone": (lambda p: (p / "head.onnx.data").unlink(), "head.onnx.data is missing"),
    "tokenizer gone": (lambda p: (p / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    "weights cut": (
        lambda p: (p / "speech.onnx.data").write_bytes((p / "speech.onnx.data").read_bytes()[:-1]),
        "speech.onnx.data has ",
    ),
    "stranger listed": (
        lambda p: change_json(p / "manifest.json", lambda raw: raw["files"].update({"../x": STRANGER})),
        "names the file '../x'",
    ),
    "file not listed": (
        lambda p: change_json(p / "manifest.json", lambda raw: raw["files"].pop("head.onnx")),
        "does not list 'head.onnx'",
    ),
    "graph of nothing": (
        lambda p: ((p / "head.onnx").write_bytes(b"\x3a\xff\x01"), write_manifest(p)),
        "head.onnx: not an ONNX graph",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_told_beside_everything_else_with_exit_code_5(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, says = DAMAGES[name]
    damage(folder)
    (problem,) = describe_package(folder).problems
    assert says in problem
    assert main(["show", str(folder)]) == 5
    captured = capsys.readouterr()
    assert f"problem: {problem}" in captured.out and "precision" in captured.out
    assert captured.err == "" and "Every file is there" not in captured.out
    assert main(["show", str(folder), "--json"]) == 5
    assert json.loads(capsys.readouterr().out)["problems"] == [problem]


def test_every_damage_is_told_at_once(folder: Path) -> None:
    for name in ("vision.onnx", "vision.onnx.data", "decoder.onnx.data"):
        (folder / name).unlink()
    report = describe_package(folder)
    assert len(report.problems) == 3
    assert {graph.name: graph.weight_bytes for graph in report.graphs}["decoder"] == 0


@pytest.mark.parametrize("name", ["manifest.json", "phi4_onnx.json", "config.json"])
def test_folder_whose_small_files_are_broken_is_refused(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / name).write_text("{")
    with pytest.raises(InvalidArtifact, match=name.replace(".", r"\.")):
        describe_package(folder)
    assert main(["show", str(folder)]) == 5
    assert name in capsys.readouterr().err


def test_config_of_another_model_is_refused(folder: Path) -> None:
    change_json(folder / "config.json", lambda raw: raw.update(num_attention_heads=3))
    with pytest.raises(InvalidConfig, match="num_attention_heads"):
        describe_package(folder)


def flip_first_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def test_flipped_byte_is_told_and_in_large_data_left_to_the_comparison_of_digests(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip_first_byte(folder / "decoder.onnx.data")
    (problem,) = describe_package(folder).problems
    assert "decoder.onnx.data: its content is not what the manifest states" in problem
    monkeypatch.setattr(checking, "LARGE_BYTES", 10_000)
    assert describe_package(folder).problems == ()
    with pytest.raises(InvalidArtifact, match="other contents"):
        open_package(folder, compare_large=False).verify()


def test_settings_of_other_programs_may_be_edited_or_gone(folder: Path) -> None:
    (folder / "genai_config.json").write_text("{}")
    (folder / "tokenizer_config.json").unlink()
    assert describe_package(folder).problems == ()


def test_report_loads_neither_the_runtime_nor_the_builders(whole: Path) -> None:
    code = (
        "import sys\nfrom phi4.onnx.report import describe_package\ndescribe_package(sys.argv[1])\n"
        "print(sorted({'onnxruntime', 'onnx', 'onnx_ir', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(whole)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
