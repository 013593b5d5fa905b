"""One recording that fails costs itself only, whatever the reason, and each failure is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from phi4.cli import options
from phi4.cli.main import main
from phi4.errors import InvalidMedia, MissingExtra, OutOfMemory, Phi4Error
from phi4.types import Completion, Timing, Usage

# What goes wrong with a file of this name, and when.
LOOKING = {"film.mp4": MissingExtra("film.mp4 needs PyAV"), "gone.wav": InvalidMedia("gone.wav is missing")}
HEARING = {"long.wav": OutOfMemory("no room for long.wav"), "cut.wav": InvalidMedia("cut.wav is damaged")}


class Model:
    """Hears what its files are called."""

    def transcribe(self, file: str, **_: Any) -> Completion:
        if file in HEARING:
            raise HEARING[file]
        return Completion(f"this is {file}", (1,), (), "stop", Usage(1, 1), Timing())


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(images: Sequence[str], audio: Sequence[str]) -> None:
        for file in audio:
            if file in LOOKING:
                raise LOOKING[file]

    monkeypatch.setattr(options, "check_media", look)
    monkeypatch.setattr(options, "load_model", lambda args: Model())


@pytest.mark.parametrize("failing", [*LOOKING, *HEARING])
def test_the_others_still_run_and_the_exit_code_is_kept(
    failing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error: Phi4Error = (LOOKING | HEARING)[failing]
    assert main(["transcribe", "a.wav", failing, "b.wav"]) == error.exit_code
    captured = capsys.readouterr()
    assert captured.out == "a.wav: this is a.wav\nb.wav: this is b.wav\n"
    assert captured.err == f"phi4: error: {error}\n"


def test_every_failure_is_told_and_the_first_gives_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", *HEARING, *LOOKING, "a.wav", "--json"]) == MissingExtra.exit_code
    captured = capsys.readouterr()
    assert json.loads(captured.out)["file"] == "a.wav"
    told = [json.loads(line)["error"]["exit_code"] for line in captured.err.splitlines()]
    assert told == [7, 3, 9, 3]  # all files are looked at before the first is heard


def test_no_model_is_loaded_when_no_file_can_be_heard(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(options, "load_model", lambda args: pytest.fail("loaded for nothing"))
    assert main(["transcribe", *LOOKING]) == MissingExtra.exit_code
    assert capsys.readouterr().err.count("phi4: error: ") == 2
