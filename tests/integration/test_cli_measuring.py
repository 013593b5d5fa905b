"""eval, train and demo, run whole: files, exit codes, an honest verdict on a model that knows nothing."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import soundfile
from PIL import Image

import phi4
from phi4.cli.main import main
from phi4.data import generate
from phi4.testing.tiny import write_tiny_checkpoint
from phi4.types import TextPart


@pytest.fixture(autouse=True)
def _fresh_pictures_stay_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo keeps its fresh picture for the doubtful reader; tests should not pile them up."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_checkpoint(folder)
    return str(folder)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    chart = generate("spoken_chart_qa", "examples", 0)
    picture, recording = (part.source for part in chart.media)
    Image.fromarray(picture).save(folder / "chart.png")
    soundfile.write(folder / "question.wav", recording, 16000)
    items = [
        {
            "task": "spoken_chart_qa",
            "prompt": "",
            "images": ["chart.png"],
            "audio": ["question.wav"],
            "answers": list(chart.answers),
            "spoken": chart.metadata["spoken"],
        },
        {"task": "sums", "prompt": "12 + 7", "answers": ["answer: 19"]},
    ]
    (folder / "manifest.json").write_text(json.dumps({"items": items}))
    return folder


def test_eval_writes_report_page_and_picture(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["eval", tiny, "-n", "3", "--tasks", "spoken_chart_qa,sums", "--out", str(tmp_path)]
    assert main(line) == 0
    captured = capsys.readouterr()
    assert "Not 30 points above blind with an interval excluding zero: spoken_chart_qa." in captured.out
    assert [line.split(":")[0] for line in captured.err.splitlines()] == [
        "spoken_chart_qa",
        "sums",
        "written",
    ]
    report = json.loads((tmp_path / "report.json").read_text())
    assert [row["task"] for row in report["rows"]] == ["spoken_chart_qa", "sums"]
    names = [control["name"] for control in report["rows"][0]["controls"]]
    assert names == ["blind (image)", "blind (audio)", "wrong image", "wrong audio", "adapter off"]
    assert "float32" in report["runner"]
    page = (tmp_path / "report.md").read_text()
    assert "\n| task | n |" in page and "\n| sums: " in page
    with Image.open(tmp_path / "report.png") as picture:
        assert picture.format == "PNG"


def test_eval_that_is_stopped_keeps_the_tasks_that_were_finished(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = phi4.Phi4.generate

    def until_text(self: phi4.Phi4, requests: list[phi4.Request]) -> list[phi4.Completion]:
        if all(isinstance(part, TextPart) for message in requests[0].messages for part in message.parts):
            raise KeyboardInterrupt
        return answered(self, requests)

    monkeypatch.setattr(phi4.Phi4, "generate", until_text)
    line = ["eval", tiny, "-n", "2", "--tasks", "chart_qa,sums", "--out", str(tmp_path)]
    assert main(line) == 130
    rows = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert [row["task"] for row in rows] == ["chart_qa"]


def test_eval_of_a_text_model_asks_what_it_can_answer_and_refuses_the_rest_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_checkpoint(tmp_path / "mini", "mini")
    line = ["eval", str(tmp_path / "mini"), "-n", "2", "--json"]
    assert main(line) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["task"] for row in rows] == ["table_qa", "number_qa", "command", "sums"]
    assert main([*line, "--tasks", "read_text"]) == 2
    assert "takes no pictures" in capsys.readouterr().err


def test_eval_as_json_can_be_made_again(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    def report() -> list[dict[str, object]]:
        assert main(["eval", tiny, "-n", "3", "--tasks", "read_text", "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)["rows"]
        return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]

    assert report() == report()


@pytest.mark.parametrize("line", [["eval", "no/such/model"], ["train", "smoke"]])
def test_a_place_that_cannot_be_written_is_found_before_the_work(
    line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    assert main([*line, "--out", str(tmp_path / "file" / "out")]) == 2
    assert "give a folder that can be written" in capsys.readouterr().err


def test_eval_lists_its_tasks_without_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--list"]) == 0
    assert "speech_salad: " in capsys.readouterr().out


def test_eval_of_an_unknown_task_fails_before_loading(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "no/such/model", "--tasks", "poems"]) == 2
    assert "unknown task 'poems'" in capsys.readouterr().err


def test_demo_shows_everything_and_a_wrong_answer_is_no_failure(
    tiny: str, examples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "-m", tiny, "--media", str(examples)]) == 0
    out = capsys.readouterr().out
    spoken = generate("spoken_chart_qa", "examples", 0).metadata["spoken"]
    for word in (
        "chart.png",
        "question.wav",
        f"(in the recording: {spoken})",
        "12 + 7",
        "vision",
        "first token",
        "tokens/s",
    ):
        assert word in out
    (fresh,) = [line.split()[-1] for line in out.splitlines() if line.endswith("fresh.png")]
    assert Path(fresh).is_file()
    assert out.rstrip().endswith("0 of 3 right.")
    assert "characters)" in out and "verdict   wrong\n" in out


def test_demo_as_json_has_a_fresh_picture_each_time(
    tiny: str, examples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = set()
    for _ in range(3):
        assert main(["demo", "-m", tiny, "--media", str(examples), "--json"]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["adapters"] for line in lines] == [["vision"], [], ["vision"]]
        seen.add(lines[-1]["expected"])
    assert len(seen) > 1


def test_demo_shows_the_examples_of_the_repository(
    tiny: str, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repository)
    assert main(["demo", "-m", tiny, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {tuple(line["adapters"]) for line in lines} == {("vision",), ("speech",), ()}
    media = [Path(file) for line in lines[:-1] for file in line["files"]]
    assert {path.suffix for path in media} == {".png", ".wav"}
    assert all(path.parent == Path("examples/media") for path in media)


def test_demo_without_examples_says_what_writes_them(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "-m", tiny, "--media", str(tmp_path)]) == 5
    assert "make examples" in capsys.readouterr().err


def test_train_runs_a_recipe_and_says_what_came_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["train", "smoke", "--out", str(tmp_path / "run"), "--steps", "6", "--workers", "0", "--json"]
    assert main(line) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["finished"] is True and facts["steps"] == 6
    assert main(["show", str(tmp_path / "run" / "model")]) == 0


def test_train_refuses_a_used_folder_when_asked_to_start_fresh(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["train", "smoke", "--out", str(tmp_path), "--steps", "4", "--workers", "0", "--quiet"]
    assert main(line) == 0
    capsys.readouterr()
    assert main([*line, "--fresh"]) == 8
    assert "already holds a run" in capsys.readouterr().err


def test_unknown_recipe_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "giant"]) == 2
    assert "nano" in capsys.readouterr().err
