"""Each kind of damage to a model's folder is found by the check that is about it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phi4.checkpoint import open_checkpoint
from phi4.diagnose import files
from phi4.diagnose.case import Asked, Case
from phi4.diagnose.examine import examine
from phi4.diagnose.finding import Finding, judged
from phi4.errors import InvalidArtifact, InvalidConfig, ModelNotFound
from phi4.onnx.building import ExportOptions, export_package
from phi4.testing.tiny import write_tiny_checkpoint

CHECKS: dict[str, Callable[[Case], Finding]] = {
    "model": files.check_model,
    "config": files.check_config,
    "weights": files.check_weights,
    "checksums": files.check_checksums,
    "longrope": files.check_longrope,
    "adapters": files.check_adapters,
    "tokenizer": files.check_tokenizer,
}


def examined(folder: Path, **asked: Any) -> dict[str, Finding]:
    """Findings of all checks of files, by name."""
    case = Case(Asked(str(folder), **asked))
    found = {name: judged(name, lambda check=check: check(case)) for name, check in CHECKS.items()}
    return {name: finding for name, finding in found.items() if finding is not None}


def not_ok(found: dict[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.verdict != "ok"}


def edit_json(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("runner", ["onnx", "torch", None])
def test_whole_model_is_fine_in_either_form(whole: Path, runner: str | None) -> None:
    found = examined(whole, runner=runner)
    assert not not_ok(found) and list(found) == list(CHECKS)
    assert ("ONNX package" in found["model"].finding) == (runner != "torch")
    both = " and 3 files of " in found["checksums"].finding
    assert both == (runner != "torch"), "a package inside a checkpoint is compared together with it"


@pytest.mark.parametrize("options", [{"device": "cuda"}, {"dtype": "float32"}, {"attention": "sdpa"}])
def test_options_of_pytorch_choose_its_form_as_loading_does(whole: Path, options: dict[str, str]) -> None:
    assert "for the torch runner" in examined(whole, **options)["model"].finding


def test_processor_is_a_choice_either_form_has(whole: Path) -> None:
    assert "for the onnx runner" in examined(whole, device="cpu")["model"].finding


def test_model_that_is_nowhere_leaves_the_rest_out(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        files.check_model(Case(Asked(str(tmp_path / "gone"))))
    found = examined(tmp_path / "gone")
    assert found["model"].verdict == "error" and not found["model"].files
    assert {found[name].verdict for name in found if name != "model"} == {"warning"}
    assert all("left out" in found[name].finding for name in found if name != "model")


def test_form_a_model_does_not_have_is_an_error(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path, "mini")
    assert "no ONNX package" in examined(tmp_path, runner="onnx")["model"].finding


def test_flipped_byte_of_a_checkpoint_is_found_by_the_checksums_alone_and_not_when_quick(model: Path) -> None:
    flip_last_byte(model / "model.safetensors")
    found = examined(model)
    assert not_ok(found) == {"checksums"}
    assert found["checksums"].files and "model.safetensors" in found["checksums"].finding
    assert not not_ok(quick := examined(model, quick=True))
    assert quick["checksums"].finding == "left out (--quick)"


@pytest.mark.parametrize("quick", [False, True])
def test_flipped_byte_of_a_package_is_found_when_it_is_opened(model: Path, quick: bool) -> None:
    flip_last_byte(model / "onnx" / "head.onnx.data")
    found = examined(model, quick=quick)
    assert found["weights"].files and "head.onnx.data: its content is not" in found["weights"].finding
    assert found["weights"].advice == "fetch or export it again"
    assert ("checksums" in not_ok(found)) != quick


def test_flipped_byte_of_large_data_is_left_to_the_checksums(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phi4.onnx.package.checking.LARGE_BYTES", 10_000)
    flip_last_byte(model / "onnx" / "head.onnx.data")
    found = examined(model)
    assert not_ok(found) == {"checksums"}
    assert found["checksums"].files and "head.onnx.data" in found["checksums"].finding
    assert not not_ok(examined(model, quick=True))


def test_folder_without_a_manifest_has_nothing_to_compare(model: Path) -> None:
    (model / "manifest.json").unlink()
    found = examined(model, runner="torch")
    assert found["checksums"].verdict == "ok" and "has no manifest.json" in found["checksums"].finding


def test_graph_that_is_missing_is_found_when_the_package_is_opened(model: Path) -> None:
    (model / "onnx" / "vision.onnx").unlink()
    found = examined(model)
    assert found["weights"].verdict == "error" and found["weights"].files
    assert "vision.onnx: missing" in found["weights"].finding
    assert "weights" not in not_ok(examined(model, modalities=("text", "speech")))


def test_tensors_that_do_not_fit_the_config_are_broken_files(model: Path) -> None:
    edit_json(model / "config.json", num_hidden_layers=3)
    found = examined(model, runner="torch", quick=True)
    assert found["weights"].verdict == "error" and found["weights"].files
    assert found["adapters"].finding == "left out: it needs what 'weights' did not find"


def test_config_that_cannot_work_names_the_field(model: Path) -> None:
    edit_json(model / "onnx" / "config.json", num_attention_heads=-1)
    with pytest.raises(InvalidConfig):
        files.check_config(Case(Asked(), path=model / "onnx"))
    found = examined(model)
    assert found["config"].files and "num_attention_heads" in found["config"].finding


def test_token_beyond_the_vocabulary_is_found_in_the_config(model: Path) -> None:
    edit_json(model / "config.json", eos_token_id=[306, 5000], bos_token_id=None)
    found = examined(model, runner="torch", quick=True)
    assert found["config"].verdict == "error" and "eos_token_id = 5000" in found["config"].finding


def test_longrope_tells_where_it_switches_and_what_that_costs(whole: Path, tmp_path: Path) -> None:
    told = examined(whole)["longrope"].finding
    assert "up to 4,096 tokens, long ones up to 8,192" in told and "read once more" in told
    write_tiny_checkpoint(tmp_path, max_positions=512)
    told = examined(tmp_path, runner="torch")["longrope"].finding
    assert told == "short factors up to the whole context of 512 tokens"


def test_encoder_without_adapter_is_a_warning_with_the_folder_to_fetch(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path, "hf")
    shutil.rmtree(tmp_path / "vision-lora")
    found = examined(tmp_path)["adapters"]
    assert found.verdict == "warning" and found.advice.endswith("vision-lora/")
    assert "without one: vision (pictures)" in found.finding
    assert examined(tmp_path, modalities=("text", "speech"))["adapters"].verdict == "ok"


def test_provider_is_examined_as_load_would_take_it(model: Path, tmp_path: Path) -> None:
    package = export_package(open_checkpoint(model), tmp_path / "p", ExportOptions("fp32"))
    absent = {found.name: found for found in examine(Asked(str(package), provider="abacus", quick=True))}
    assert "for the onnx runner" in absent["model"].finding
    assert absent["runner"].verdict == "error" and "provider 'abacus'" in absent["runner"].finding
    assert absent["loading"].verdict == "error"
    beside = examined(package, provider="cpu", device="cpu")["model"]
    assert beside.verdict == "error" and "beside device 'cpu'" in beside.finding
    here = {found.name: found for found in examine(Asked(str(package), provider="cpu", quick=True))}
    assert (here["runner"].verdict, here["loading"].verdict) == ("ok", "ok")


@pytest.mark.parametrize("name", ["vision", "speech"])
def test_adapter_that_is_part_of_the_weights_is_not_missed(name: str, model: Path, tmp_path: Path) -> None:
    merged = export_package(open_checkpoint(model), tmp_path / "p", ExportOptions("fp32", merge_adapter=name))
    found = examined(merged)["adapters"]
    assert found.verdict == "ok" and found.finding == f"adapters: none; {name} is part of the weights"


def test_adapter_of_the_users_own_must_be_whole_and_have_a_slot(model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    found = examined(model, adapter=str(tmp_path / "mine"))["adapters"]
    assert found.verdict == "error" and found.files and "adapter_config.json" in found.finding
    write_tiny_checkpoint(tmp_path / "hf", "hf")
    own = tmp_path / "my-lora"
    shutil.copytree(tmp_path / "hf" / "speech-lora", own)
    found = examined(model, adapter=str(own))["adapters"]
    assert found.verdict == "ok" and "my-lora of yours (rank 5)" in found.finding
    bare = export_package(
        open_checkpoint(model), tmp_path / "bare", ExportOptions(precision="fp32", user_slot=False)
    )
    found = examined(bare, adapter=str(own))["adapters"]
    assert found.verdict == "error" and "has no slot" in found.finding and not found.files


def test_adapter_called_like_a_modality_is_refused(model: Path, tmp_path: Path) -> None:
    assert (
        "cannot be called 'vision'" in examined(model, adapter=str(tmp_path / "vision"))["adapters"].finding
    )


def added_tokens(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = folder / "tokenizer.json"
    return path, json.loads(path.read_text())


@pytest.mark.parametrize(
    ("token", "verdict", "says"),
    [
        ("<|endoftext10|>", "error", "no token for: image"),
        ("<|tool_call|>", "warning", "no token for: tool_call"),
    ],
)
def test_control_token_that_is_not_there_is_named(model: Path, token: str, verdict: str, says: str) -> None:
    path, content = added_tokens(model / "onnx")
    content["added_tokens"] = [entry for entry in content["added_tokens"] if entry["content"] != token]
    path.write_text(json.dumps(content))
    found = examined(model)["tokenizer"]
    assert found.verdict == verdict and says in found.finding and found.advice


def test_token_no_chat_can_do_without_makes_it_no_tokenizer_of_this_family(model: Path) -> None:
    path, content = added_tokens(model / "onnx")
    content["added_tokens"] = [entry for entry in content["added_tokens"] if entry["content"] != "<|end|>"]
    path.write_text(json.dumps(content))
    with pytest.raises(InvalidArtifact, match="this is no Phi-4 tokenizer"):
        files.check_tokenizer(_configured(model / "onnx"))


def test_config_that_ends_answers_elsewhere_is_a_warning(model: Path) -> None:
    edit_json(model / "onnx" / "config.json", eos_token_id=[306, 17])
    found = examined(model)["tokenizer"]
    assert found.verdict == "warning" and "the config names 17 too" in found.finding


def _configured(path: Path) -> Case:
    case = Case(Asked(), path=path)
    files.check_config(case)
    return case
