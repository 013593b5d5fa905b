"""One recording that fails costs itself only, whatever the reason, and each failure is told."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from phi4.cli import options
from phi4.cli.main import main
from phi4.cli.transcribe import FORMATS
from phi4.errors import InvalidMedia, MissingExtra, OutOfMemory, Phi4Error
from phi4.processing.stitching import Transcript, TranscriptSegment
from phi4.types import Timing, Usage

# What goes wrong with a file of this name, and when.
LOOKING = {"film.mp4": MissingExtra("film.mp4 needs PyAV"), "gone.wav": InvalidMedia("gone.wav is missing")}
HEARING = {"long.wav": OutOfMemory("no room for long.wav"), "cut.wav": InvalidMedia("cut.wav is damaged")}


class Model:
    """Hears what its files are called."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def transcribe(self, file: str, **options: Any) -> Transcript:
        if file in HEARING:
            raise HEARING[file]
        self.asked.append(options)
        segment = TranscriptSegment(0.5, 1.5, f"this is {file}", (1,))
        return Transcript(
            segment.text, (1,), (), "stop", Usage(1, 1), Timing(), segments=(segment,), duration_s=2.0
        )


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    made = Model()

    def look(images: Sequence[str], audio: Sequence[str]) -> None:
        for file in audio:
            if file in LOOKING:
                raise LOOKING[file]

    monkeypatch.setattr(options, "check_media", look)
    monkeypatch.setattr(options, "load_model", lambda args: made)
    return made


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


SRT = "1\n00:00:00,500 --> 00:00:01,500\nthis is {file}\n"


def test_each_format_goes_to_standard_output(capsys: pytest.CaptureFixture[str], model: Model) -> None:
    said: dict[str, str] = {}
    for form in FORMATS:
        assert main(["transcribe", "a.wav", "--format", form]) == 0
        said[form] = capsys.readouterr().out
    assert said["text"] == "this is a.wav\n" and said["srt"] == SRT.format(file="a.wav")
    assert (
        said["vtt"].startswith("WEBVTT\n") and "00:00:00.500 --> 00:00:01.500\nthis is a.wav\n" in said["vtt"]
    )
    verbose, plain = json.loads(said["verbose_json"]), json.loads(said["json"])
    assert (
        verbose["timing"] == "derived" and verbose["segments"][0]["end"] == 1.5 and verbose["duration"] == 2.0
    )
    assert plain["segment_times"] == "derived" and plain["text"] == "this is a.wav"
    assert plain["segments"] == [
        {"start_s": 0.5, "end_s": 1.5, "text": "this is a.wav", "finish_reason": "stop"}
    ]
    assert [asked["timestamps"] for asked in model.asked] == [
        form in ("srt", "vtt", "verbose_json") for form in FORMATS
    ]


def test_everything_is_heard_or_a_model_judges(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["transcribe", "a.wav", "--hear-all", "--voice-activity", "vad.onnx"])
    assert "--voice-activity: not allowed with argument --hear-all" in capsys.readouterr().err


def test_options_reach_the_model(model: Model) -> None:
    line = ["transcribe", "a.wav", "--hot-words", "Ada,Grace", "--hot-words", "Alan", "--hear-all"]
    assert main([*line, "--max-segment-s", "9.5", "--temperature", "0.5"]) == 0
    (asked,) = model.asked
    assert asked["hot_words"] == "Ada,Grace,Alan" and asked["skip_silence"] is False
    assert asked["max_segment_s"] == 9.5 and asked["temperature"] == 0.5


def test_files_are_written_beside_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "subtitles"
    assert main(["transcribe", "a.wav", "b.wav", "--format", "srt", "--out", str(folder)]) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and str(folder / "b.srt") in captured.err
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        name.replace("wav", "srt"): SRT.format(file=name) for name in ("a.wav", "b.wav")
    }


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["a.wav", "b.wav", "--format", "vtt"], "--format vtt of several recordings: give --out DIR"),
        (["a.wav", "--json", "--format", "srt"], "--json is --format json: leave it out"),
        (["a.wav", "a.mp3", "--out", "."], "two recordings would have one file"),
        (["a.wav", "--out", "taken/x"], "--out .*give a folder that can be written"),
    ],
)
def test_what_cannot_be_is_told_before_a_model_is_loaded(
    line: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setattr(options, "load_model", lambda args: pytest.fail("loaded for nothing"))
    assert main(["transcribe", *line]) == 2
    assert re.search(words, capsys.readouterr().err)


def test_a_file_that_cannot_be_written_costs_itself_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").mkdir()
    assert main(["transcribe", "a.wav", "b.wav", "--out", str(tmp_path)]) == 2
    assert "a.txt cannot be written" in capsys.readouterr().err
    assert (tmp_path / "b.txt").read_text() == "this is b.wav\n"


def test_formats_of_the_help_are_those_in_use() -> None:
    with pytest.raises(SystemExit):
        main(["transcribe", "a.wav", "--format", "docx"])
