"""`prepare` says what it stored or found and refuses what cannot be; `show` and `doctor` tell of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from phi4.cli.main import main
from phi4.cli.prepare import check_provider
from phi4.errors import InvalidRequest
from phi4.onnx.serving.prepared import find_prepared
from phi4.registry import find_form
from phi4.testing.tiny import write_tiny_checkpoint


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHI4_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    _, found = find_form("nano", "onnx")
    return Path(shutil.copytree(Path(str(found)), tmp_path / "package"))


def told(capsys: pytest.CaptureFixture[str], *line: object, code: int = 0) -> dict[str, Any]:
    assert main([*map(str, line), "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_it_prepares_once_and_removes_on_request(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(package)]) == 0
    first = capsys.readouterr()
    found = find_prepared(package)
    assert found is not None and first.out.startswith(f"{found.folder}: {found.nbytes / 1e6:,.1f} MB in ")
    assert "so little is gained" in first.out and first.err == ""
    assert main(["prepare", str(package)]) == 0
    assert " MB already prepared\n" in capsys.readouterr().out
    assert main(["prepare", str(package), "--remove"]) == 0
    assert capsys.readouterr().out == f"removed {found.folder}\n" and find_prepared(package) is None
    assert main(["prepare", str(package), "--remove"]) == 0
    assert capsys.readouterr().out == "nothing was prepared of it\n"


def test_json_says_the_same(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (told(capsys, "prepare", package) for _ in range(2))
    found = find_prepared(package)
    assert found is not None and first["folder"] == second["folder"] == str(found.folder)
    assert (first["already_there"], second["already_there"]) == (False, True)
    assert first["bytes"] == second["bytes"] == found.nbytes and first["seconds"] >= 0
    assert told(capsys, "prepare", package, "--remove") == {"removed": [str(found.folder)]}


def test_broken_preparation_is_made_anew(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(told(capsys, "prepare", package)["folder"])
    (folder / "decoder.onnx.data").write_bytes(b"")
    again = told(capsys, "prepare", package)
    assert again["folder"] == str(folder) and not again["already_there"]
    assert find_prepared(package) is not None


def test_nano_is_prepared_by_name(capsys: pytest.CaptureFixture[str], cache: Path) -> None:
    assert Path(told(capsys, "prepare", "nano")["folder"]).is_relative_to(cache)
    assert told(capsys, "show", "nano")["package"]["prepared"] is not None


def test_checkpoint_is_refused_with_the_way_to_a_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_checkpoint(tmp_path / "model")
    for model in (str(tmp_path / "model"), "microsoft/Phi-4-mini-instruct"):
        assert main(["prepare", model]) == 2
        assert "phi4 export MODEL --out FOLDER" in capsys.readouterr().err


def test_damaged_package_is_refused(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (package / "head.onnx").write_bytes(b"")
    assert main(["prepare", str(package)]) == 5
    assert "head.onnx" in capsys.readouterr().err and find_prepared(package) is None


def test_other_providers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["OpenVINOExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    check_provider(None)
    check_provider("cpu")
    with pytest.raises(
        InvalidRequest, match=r"'openvino': it arranges weights by itself.*leave the option out"
    ):
        check_provider("openvino")
    with pytest.raises(InvalidRequest, match=r"provider 'cuda': the installed ONNX Runtime"):
        check_provider("cuda")


def test_show_and_doctor_tell_whether_it_is_prepared(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def lines() -> tuple[str, str]:
        assert main(["show", str(package)]) == 0
        shown = capsys.readouterr().out.splitlines()
        assert main(["doctor", "-m", str(package), "--quick", "--modalities", "text"]) == 0
        examined = capsys.readouterr().out.splitlines()
        (one,) = [line for line in shown if line.startswith("prepared ")]
        (other,) = [line for line in examined if line.startswith("prepared ")]
        return one, other

    shown, examined = lines()
    assert " no (phi4 prepare" in shown and "  ok  " in examined and "nothing prepared" in examined
    assert told(capsys, "show", package)["prepared"] is None
    folder = Path(told(capsys, "prepare", package)["folder"])
    shown, examined = lines()
    assert "for this machine, " in shown and shown.endswith(str(folder)) and str(folder) in examined
    assert told(capsys, "show", package)["prepared"] == str(folder)
    (folder / "head.onnx").unlink()
    shown, examined = lines()
    assert "broken, so the files above are opened: " in shown
    assert " warning " in examined and "the package's own graphs are opened" in examined
    assert told(capsys, "show", package)["prepared"] is None
