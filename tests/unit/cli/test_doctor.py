"""`doctor` shows findings and advice, is JSON for programs, and its exit code says whose fault it is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from phi4.checkpoint import open_checkpoint
from phi4.cli.main import main
from phi4.diagnose import Asked, Finding
from phi4.onnx.building import ExportOptions, export_package
from phi4.testing.tiny import write_tiny_checkpoint

# As if these were not installed: they are neither found nor imported.
BLOCK = """
import sys
sys.modules.update(dict.fromkeys(("torch", "transformers", "onnx_ir", "gguf")))
from phi4.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doctor")
    write_tiny_checkpoint(folder / "tiny")
    return export_package(
        open_checkpoint(folder / "tiny"), folder / "package", ExportOptions(precision="fp32")
    )


def test_table_has_a_line_a_check_and_a_count(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "-m", str(package), "--quick"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    for name in ("versions", "threads", "weights", "longrope", "memory", "picture"):
        assert any(line.split()[:1] == [name] for line in lines), name
    assert captured.out.rstrip().splitlines()[-1].endswith(" ok") and captured.err == ""


def test_findings_are_shown_as_they_come(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def examine(asked: Asked) -> Iterator[Finding]:
        assert asked.model == "nano"
        yield Finding("ok", "all is well", name="first")
        assert capsys.readouterr().out.split() == ["first", "ok", "all", "is", "well"]
        yield Finding("warning", "odd", "look", name="second")

    monkeypatch.setattr("phi4.diagnose.examine", examine)
    assert main(["doctor"]) == 0
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert told == [["second", "warning", "odd"], ["->", "look"], [], ["1", "ok,", "1", "warning"]]


def test_json_holds_every_finding(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "-m", str(package), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == str(package) and found["verdict"] in ("ok", "warning")
    checks = {check["name"]: check for check in found["checks"]}
    assert set(checks["checksums"]) == {"name", "verdict", "finding", "advice", "files"}
    assert checks["recording"]["verdict"] == "ok"


def test_broken_file_has_its_exit_code_and_advice(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "broken[red]"  # brackets are no markup
    copy.mkdir()
    for path in package.iterdir():
        data = path.read_bytes()
        (copy / path.name).write_bytes(data[:-1] + b"\x7f" if path.name == "speech.onnx.data" else data)
    assert main(["doctor", "-m", str(copy), "--modalities", "text"]) == 5
    out = capsys.readouterr().out
    assert "speech.onnx.data has other contents" in out and "-> fetch, export or train" in out
    assert "broken[red]" in out and "1 error" in out


def test_model_that_is_nowhere_is_told_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "-m", "./no/such/model"]) == 1
    captured = capsys.readouterr()
    assert "no such directory" in captured.out and captured.err == ""


def test_doctor_needs_neither_torch_nor_an_extra(package: Path) -> None:
    line = [sys.executable, "-c", BLOCK, "doctor", "-m", str(package), "--json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {check["verdict"] for check in json.loads(done.stdout)["checks"]} <= {"ok", "warning"}


def test_model_whose_runner_is_not_installed_is_an_error_that_names_the_extra(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path, "mini")
    line = [sys.executable, "-c", BLOCK, "doctor", "-m", str(tmp_path), "--json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stdout + done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["runner"]["verdict"] == checks["loading"]["verdict"] == "error"
    assert "'.[torch]'" in checks["runner"]["advice"]
    assert checks["weights"]["verdict"] == checks["tokenizer"]["verdict"] == "ok"
