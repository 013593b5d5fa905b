"""`bench` prints a table or JSON and writes both files; what is not installed is left out by name."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from functools import partial
from pathlib import Path

import pytest

from phi4.bench import run as running
from phi4.bench.limits import Reader
from phi4.checkpoint import open_checkpoint
from phi4.cli.main import build_parser, main
from phi4.onnx.building import ExportOptions, export_package
from phi4.testing.tiny import write_tiny_checkpoint

# As if these were not installed: they are neither found nor imported.
BLOCK = """
import sys
sys.modules.update(dict.fromkeys(("torch", "transformers", "onnx_ir", "matplotlib")))
from phi4.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    write_tiny_checkpoint(folder / "tiny", max_positions=300)
    return export_package(
        open_checkpoint(folder / "tiny"), folder / "package", ExportOptions(precision="fp32")
    )


@pytest.fixture(autouse=True)
def _small_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "Reader", partial(Reader, 1 << 20))


def test_table_goes_to_stdout_and_files_to_the_folder(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made" / "here"
    assert main(["bench", "-m", str(package), "--repeats", "1", "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert "runner onnx: cpu, fp32" in captured.out and " prompt of 128 tokens " in captured.out
    assert "written: " in captured.err
    assert sorted(path.name for path in out.iterdir()) == ["bench.json", "bench.svg"]
    assert json.loads((out / "bench.json").read_text())["rows"]
    assert ElementTree.parse(out / "bench.svg").getroot().tag.endswith("svg")


def test_json_is_the_report(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["bench", "-m", str(package), "--repeats", "1", "--modalities", "text", "--json"]
    assert main(line) == 0
    captured = capsys.readouterr()
    names = [row["name"] for row in json.loads(captured.out)["rows"]]
    assert "answer after 283, 1 row" in names and "vision, a crop" not in names
    assert captured.err == ""


def test_prompts_rows_and_lengths_are_those_asked_for_and_what_does_not_fit_is_noted(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["bench", "-m", str(package), "--repeats", "1", "--modalities", "text", "--json"]
    assert main([*line, "-p", "20,5000", "-n", "4", "--rows", "3,99", "--provider", "cpu"]) == 0
    report = json.loads(capsys.readouterr().out)
    names = [row["name"] for row in report["rows"] if row["group"] in ("prompt", "answer")]
    assert names == ["prompt of 20 tokens", "answer after 295, 3 rows", "share of the bandwidth, 3 rows"]
    assert set(report["notes"]) >= {
        "prompt of 5,000 tokens left out: the context is 300",
        "99 rows left out: at most 16 go into a step",
        "answers: 4 tokens a sample",
    }


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["--repeats", "0"], 2, "repeats is 0"),
        (["-p", "0,5"], 2, "prompts: 0, 5; give whole numbers from 1"),
        (["--rows", "2,2"], 2, "rows: 2, 2"),
        (["-n", "0"], 2, "steps: 0"),
        (["--provider", "abacus"], 2, "provider 'abacus': the installed ONNX Runtime"),
        (["--provider", "cpu", "--runner", "torch"], 2, "and the torch runner was asked for"),
        (["--provider", "cpu", "--device", "cpu"], 2, "give one of them"),
        (["--runner", "abacus"], 2, "no runner named 'abacus'"),
        (["-m", "./no/such/model"], 6, "no such directory"),
    ],
)
def test_mistakes_have_one_line(
    args: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *args]) == code
    captured = capsys.readouterr()
    assert says in captured.err and captured.err.count("\n") == 1 and captured.out == ""


def test_folder_that_cannot_be_written_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "measure_limits", lambda *args: pytest.fail("measured"))
    (tmp_path / "file").write_text("x")
    assert main(["bench", "--out", str(tmp_path / "file" / "out")]) == 2


def test_list_of_runners_without_a_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert build_parser().parse_args(["bench", "--runner", "onnx, torch"]).runner == ("onnx", "torch")
    with pytest.raises(SystemExit):
        build_parser().parse_args(["bench", "--runner", " ,"])
    assert "names no runner" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        build_parser().parse_args(["bench", "-p", "many"])
    assert "give whole numbers, such as 512,2048" in capsys.readouterr().err


def test_base_install_measures_and_draws(package: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-c", BLOCK, "bench", "-m", str(package), "--repeats", "1"]
    done = subprocess.run([*line, "--out", str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "note: products of ONNX Runtime left out" in done.stdout and "[export]" in done.stdout
    assert (tmp_path / "bench.svg").is_file()
