"""Documents, videos and long recordings on the command line, with a tiny model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from phi4.cli.main import main
from phi4.testing.files import pdf_bytes, video_bytes
from phi4.testing.media import chirp
from phi4.testing.tiny import write_tiny_checkpoint
from phi4.testing.voices import talk

FEW = ["--max-new-tokens", "6"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_checkpoint(folder)
    return str(folder)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    (folder / "hours.txt").write_text("nine to five")
    soundfile.write(folder / "lecture.wav", talk(0.5, 14.0, 1.5, 13.0, 3.0, 12.0, 0.5), 16000)
    soundfile.write(folder / "nothing.wav", 0.001 * talk(50.0), 16000)
    soundfile.write(folder / "hiss.wav", talk(2.0, noise=0.1), 16000)
    return folder


def usage(tiny: str, capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, int]:
    assert main(["ask", "what?", "-m", tiny, "--json", *FEW, *args]) == 0
    counts: dict[str, int] = json.loads(capsys.readouterr().out)["usage"]
    return counts


def test_a_text_file_is_read(tiny: str, media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = usage(tiny, capsys)
    read = usage(tiny, capsys, "--file", str(media / "hours.txt"))
    assert read["prompt_tokens"] > alone["prompt_tokens"] + 8 and read["image_tokens"] == 0


def test_pages_and_frames_are_seen_and_sound_is_heard(
    tiny: str, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av")
    pytest.importorskip("pypdfium2")
    (media / "plan.pdf").write_bytes(pdf_bytes(["one"]))
    (media / "film.mp4").write_bytes(video_bytes(20, samples=chirp(2.0)))
    page = usage(tiny, capsys, "--file", str(media / "plan.pdf"), "--detail", "low")
    film = usage(tiny, capsys, "--video", str(media / "film.mp4"))
    assert page["image_tokens"] > 0 == page["audio_tokens"]
    assert film["image_tokens"] > 0 < film["audio_tokens"]


@pytest.mark.parametrize("option", ["--file", "--video"])
def test_missing_files_are_told_before_a_model_is_loaded(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", "what?", "-m", "no/such/model", option, "gone.pdf"]) == 3
    assert "'gone.pdf' does not exist" in capsys.readouterr().err


def test_a_lecture_comes_out_as_subtitles(
    tiny: str, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(media / name) for name in ("lecture.wav", "nothing.wav")]
    assert main(["transcribe", *files, "-m", tiny, *FEW, "--format", "srt", "--out", str(tmp_path)]) == 0
    said = (tmp_path / "lecture.srt").read_text(encoding="utf-8")
    starts = re.findall(r"^00:00:(\d\d),\d\d\d --> ", said, re.MULTILINE)
    assert starts and starts == sorted(starts) and int(starts[-1]) <= 44
    assert (tmp_path / "nothing.srt").read_text() == ""
    assert capsys.readouterr().out == ""


def test_a_model_of_voice_activity_says_where_somebody_speaks(
    tiny: str, media: Path, voice_model: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["transcribe", str(media / "hiss.wav"), "-m", tiny, "--json", *FEW]
    assert main(line) == 0
    assert json.loads(capsys.readouterr().out)["segments"] == []
    assert main([*line, "--voice-activity", str(voice_model("energy"))]) == 0
    assert len(json.loads(capsys.readouterr().out)["segments"]) == 1
    assert main([*line, "--voice-activity", str(media / "hiss.wav")]) == 5
    assert "hiss.wav: ONNX Runtime" in capsys.readouterr().err


def test_parts_of_a_lecture_are_told_with_their_times(
    tiny: str, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["transcribe", str(media / "lecture.wav"), "-m", tiny, *FEW]
    assert main([*line, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [round(segment["start_s"]) for segment in told["segments"]] == [0, 32]
    assert told["segment_times"] == "derived" and told["duration_s"] == 44.5
    assert main([*line, "--format", "verbose_json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["segments"]) == 3
