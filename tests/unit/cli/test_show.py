"""`show` names what does not fit, and sizes read as people say them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from phi4.checkpoint import describe, save_checkpoint
from phi4.cli.main import main
from phi4.cli.show import SHOWN_NAMES, attention, differences, facts, size
from phi4.errors import CheckpointMismatch
from phi4.testing.tiny import tiny_config, tiny_tensors, write_tiny_checkpoint


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    """A checkpoint whose config asks for two layers more than its files hold."""
    write_tiny_checkpoint(tmp_path, "mini")
    config = json.loads((tmp_path / "config.json").read_text())
    config["num_hidden_layers"] += 4
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize(
    ("nbytes", "words"),
    [(0, "0 B"), (1023, "1,023 B"), (1024, "1.0 KiB"), (25 * 2**20, "25.0 MiB"), (7.5 * 2**30, "7.5 GiB")],
)
def test_sizes_are_written_for_people(nbytes: int, words: str) -> None:
    assert size(nbytes) == words


def test_missing_tensors_are_counted_named_and_cut_off(grown: Path) -> None:
    lines = differences(describe(grown))
    missing = int(lines[0].removeprefix("missing: "))
    assert missing == 4 * 6  # two norms, two attention matrices, two of the feed-forward, in each new layer
    assert len(lines) == 1 + SHOWN_NAMES + 1
    assert lines[-1] == f"  and {missing - SHOWN_NAMES} more (--json lists all)"


def test_whole_checkpoint_says_so_in_one_line(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path)
    assert differences(describe(tmp_path)) == ["Every tensor is there and fits the config."]


def test_facts_cover_parts_adapters_memory_and_attention(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path, "hf")
    names = [name.strip() for name, _ in facts(describe(tmp_path))]
    for wanted in ("layout", "context", "adapter vision", "memory text+speech", "cache", "attention"):
        assert wanted in names


def test_an_encoder_without_adapter_is_told_in_one_line(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path, "hf")
    shutil.rmtree(tmp_path / "vision-lora")
    lines = dict(facts(describe(tmp_path)))
    assert lines["adapter vision"] == "none: pictures run on the base weights alone"
    assert lines["adapter speech"].startswith("rank ")


def test_memory_is_told_as_stored_and_as_loaded_where_that_differs(tmp_path: Path) -> None:
    config = tiny_config("mini")
    for kind, says in ((np.float32, ""), (ml_dtypes.bfloat16, ", {loaded} loaded as float32")):
        tensors = [(name, values.astype(kind)) for name, values in tiny_tensors(config)]
        save_checkpoint(tmp_path, config, tensors, "mini")
        report = describe(tmp_path)
        stored = size(np.dtype(kind).itemsize * report.total_parameters)
        loaded = size(4 * report.total_parameters)
        line = dict(facts(report))["memory text"]
        assert line.startswith(f"{stored} stored{says.format(loaded=loaded)}, ")
        assert f"{size(report.memory_bytes(('text',)))} with 4,096 tokens" in line


@pytest.mark.parametrize("field", ["num_hidden_layers", "intermediate_size"])
def test_checkpoint_that_does_not_fit_is_told_whole_and_has_the_exit_code_of_a_misfit(
    field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_checkpoint(tmp_path, "mini")
    assert main(["show", str(tmp_path)]) == 0
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {field: 2 * config[field]}))
    capsys.readouterr()
    assert main(["show", str(tmp_path)]) == CheckpointMismatch.exit_code == 5
    captured = capsys.readouterr()
    assert "attention" in captured.out and captured.err == ""
    assert ("missing: " if field == "num_hidden_layers" else "misshapen: ") in captured.out
    assert main(["show", str(tmp_path), "--json"]) == 5
    report = json.loads(capsys.readouterr().out)
    assert report["missing"] or report["misshapen"]


def test_attention_is_found_without_importing_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    present = {"torch", "flash_attn"}
    monkeypatch.setattr("phi4.cli.show.find_spec", lambda name: object() if name in present else None)
    assert attention()["available"] == ["flash", "sdpa", "eager"]
    present.discard("flash_attn")
    assert attention()["chosen"] == "sdpa"
    present.discard("torch")
    assert attention()["available"] == [] and ".[torch]" in attention()["chosen"]
