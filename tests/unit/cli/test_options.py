"""Options become messages, sampling and tools as typed, and wrong ones are refused with what to do."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from phi4.cli import options
from phi4.cli.chat import read_line
from phi4.cli.main import build_parser, main
from phi4.configs import DTYPES, ROPE_POLICIES
from phi4.errors import InvalidRequest
from phi4.model.attention import ATTENTION_NAMES
from phi4.onnx.machine.threads import MAX_THREADS, VARIABLE, thread_count
from phi4.processing.detail import DETAILS
from phi4.registry import RUNNERS
from phi4.types import AudioPart, ImagePart, SamplingParams, TextPart


def test_user_message_puts_pictures_then_recordings_then_text() -> None:
    message = options.user_message("why?", ["a.png", "b.png"], ["c.wav"])
    assert message.role == "user"
    assert message.parts == (
        ImagePart(Path("a.png")),
        ImagePart(Path("b.png")),
        AudioPart(Path("c.wav")),
        TextPart("why?"),
    )


def test_spoken_question_has_no_text_part() -> None:
    assert options.user_message("", [], ["q.wav"]).parts == (AudioPart(Path("q.wav")),)


def test_media_options_take_several_files_and_may_be_repeated() -> None:
    args = build_parser().parse_args(["ask", "hi", "--image", "a", "b", "--image", "c", "--audio", "d"])
    assert (args.image, args.audio, args.prompt) == (["a", "b", "c"], ["d"], "hi")


def test_sampling_options_reach_the_engine_as_given() -> None:
    line = "ask x --temperature 0.7 --top-k 5 --top-p 0.9 --seed 3 --max-new-tokens 7 --stop END --stop ."
    chosen = options.sampling(build_parser().parse_args(line.split()))
    assert SamplingParams(**chosen) == SamplingParams(0.7, 5, 0.9, 3, 7, ["END", "."])


def test_length_limit_is_left_to_the_engine_unless_given() -> None:
    chosen = options.sampling(build_parser().parse_args(["ask", "x"]))
    assert "max_new_tokens" not in chosen
    assert SamplingParams(**chosen | {"stop": ()}) == SamplingParams()


def test_dash_reads_the_prompt_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe\n"))
    assert options.read_prompt("-") == "from a pipe"
    assert options.read_prompt("typed") == "typed"
    assert options.read_prompt(None) == ""


@pytest.mark.parametrize("read", [lambda: options.read_prompt("-"), read_line])
def test_input_that_is_no_text_is_refused_with_advice(
    read: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), encoding="utf-8"))
    with pytest.raises(InvalidRequest, match=r"not utf-8 text \(byte 0xe9 at 3\); convert it"):
        read()


def test_tools_file_may_hold_a_list_or_one_function(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text('{"name": "f"}')
    (tmp_path / "two.json").write_text('[{"name": "f"}, {"name": "g"}]')
    assert options.read_tools(str(tmp_path / "one.json")) == [{"name": "f"}]
    assert len(options.read_tools(str(tmp_path / "two.json"))) == 2
    assert options.read_tools(None) == []


@pytest.mark.parametrize(
    ("content", "says"), [("{", "is not JSON"), ("[1]", "a list of objects"), ('"f"', "a list of objects")]
)
def test_bad_tools_file_is_refused_by_name(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "tools.json").write_text(content)
    with pytest.raises(InvalidRequest, match=says) as refused:
        options.read_tools(str(tmp_path / "tools.json"))
    assert "tools.json" in str(refused.value)


def test_tools_file_of_endless_nesting_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(InvalidRequest, match=r"deep\.json is nested too deeply"):
        options.read_tools(str(tmp_path / "deep.json"))


def test_missing_tools_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="No such file"):
        options.read_tools(str(tmp_path / "none.json"))


def test_choices_are_those_of_the_rooms_that_use_them() -> None:
    assert set(options.DTYPES) == set(DTYPES)
    assert set(options.ATTENTION_NAMES) == set(ATTENTION_NAMES)
    assert set(options.ROPE_POLICIES) == set(ROPE_POLICIES)
    assert set(options.RUNNERS) == set(RUNNERS)
    assert options.DETAILS == DETAILS


def test_detail_of_pictures_is_asked_where_pictures_are_taken() -> None:
    for verb in (["ask", "x"], ["chat"], ["demo"]):
        assert build_parser().parse_args([*verb, "--max-crops", "3"]).max_crops == 3
        assert build_parser().parse_args([*verb, "--detail", "low"]).detail == "low"
        assert build_parser().parse_args(verb).detail is None
    for option in (["--max-crops", "3"], ["--detail", "low"]):
        with pytest.raises(SystemExit) as ended:
            build_parser().parse_args(["transcribe", "x.wav", *option])
        assert ended.value.code == 2


def test_detail_of_pictures_reaches_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr("phi4.load", lambda name, **chosen: given.update(chosen))
    for line, crops in ((["ask", "x", "--max-crops", "3"], 3), (["ask", "x"], None), (["demo"], None)):
        options.load_model(build_parser().parse_args(line))
        assert given["max_crops"] == crops


def test_provider_reaches_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr("phi4.load", lambda name, **chosen: given.update(chosen))
    for line, provider in ((["ask", "x", "--provider", "openvino"], "openvino"), (["chat"], None)):
        options.load_model(build_parser().parse_args(line))
        assert given["provider"] == provider


def test_threads_reach_every_backend_and_wrong_numbers_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (options.MAX_THREADS, options.THREADS_VARIABLE) == (MAX_THREADS, VARIABLE)
    for variable in (VARIABLE, "OMP_NUM_THREADS"):
        monkeypatch.setenv(variable, "7")
    assert main(["ask", "x", "-m", "no/such/model/here"]) == 6 and thread_count() == 7
    for verb in (["ask", "x"], ["chat"], ["doctor"], ["bench"], ["eval"], ["transcribe", "x.wav"], ["demo"]):
        assert build_parser().parse_args([*verb, "--threads", "3"]).threads == 3
    assert main(["ask", "x", "-m", "no/such/model/here", "--threads", "3"]) == 6
    assert thread_count() == 3 and os.environ["OMP_NUM_THREADS"] == "3"
    for wrong in ("0", "-1", "1025", "two"):
        with pytest.raises(SystemExit):
            main(["ask", "x", f"--threads={wrong}"])
        assert "give a whole number from 1 to 1024" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["doctor", "bench"])
@pytest.mark.parametrize("option", [["--rope-policy", "pin"], ["--no-speculation"]])
def test_options_a_verb_has_no_use_for_are_refused(
    verb: str, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, *option])
    assert ended.value.code == 2 and f"unrecognized arguments: {option[0]}" in capsys.readouterr().err


def test_absent_provider_is_refused_before_a_model_is_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "x", "--provider", "abacus", "-m", "no/such/model/here"]) == 2
    assert "provider 'abacus': the installed ONNX Runtime" in capsys.readouterr().err
    beside = ["--provider", "openvino", "--device", "cpu"]
    assert main(["ask", "x", *beside, "-m", "no/such/model/here"]) == 2
    assert "give one of them" in capsys.readouterr().err


@pytest.mark.parametrize("crops", ["0", "-1"])
def test_impossible_detail_is_refused_before_a_model_is_looked_for(
    crops: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", "x", "--max-crops", crops, "-m", "no/such/model/here"]) == 2
    assert f"max_crops is {crops}: give a whole number from 1" in capsys.readouterr().err


def test_modalities_are_a_comma_list() -> None:
    assert build_parser().parse_args(["ask", "x", "--modalities", "text, speech"]).modalities == (
        "text",
        "speech",
    )


@pytest.mark.parametrize("value", ["smell", "", "text;vision"])
def test_unknown_modality_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(["ask", "x", "--modalities", value])
    assert ended.value.code == 2
    assert "is not a list of text, vision, speech" in capsys.readouterr().err


def test_asking_nothing_says_what_to_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask"]) == 2
    assert "give a prompt, --image or --audio" in capsys.readouterr().err


def test_version_verb_names_every_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("phi4 ") and "numpy " in out and "torch " in out
