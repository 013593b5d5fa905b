"""The commands, run whole on a tiny model: what goes to which stream, and which exit code comes back."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
from PIL import Image

from phi4.cli.chat import Conversation
from phi4.cli.main import main
from phi4.testing.media import chirp, ramp_picture
from phi4.testing.tiny import write_tiny_checkpoint

FEW = ["--max-new-tokens", "6"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_checkpoint(folder)
    return str(folder)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    Image.fromarray(ramp_picture(40, 24)).save(folder / "sign.png")
    soundfile.write(folder / "talk.wav", chirp(0.6), 16000)
    (folder / "broken.wav").write_bytes(b"RIFF\x00\x00")
    (folder / "tools.json").write_text('[{"name": "lamp", "parameters": {"room": {"type": "str"}}}]')
    return folder


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "phi4", *args]


def test_answer_goes_to_stdout_and_statistics_to_stderr(
    tiny: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", "hello", "-m", tiny, "--stats", *FEW]) == 0
    captured = capsys.readouterr()
    assert captured.out
    assert captured.err.startswith("adapter: none, prompt: ")
    assert "answer: 6 tokens (length)" in captured.err


def test_an_answer_that_was_cut_says_so_and_how_to_get_more(
    tiny: str, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = "(cut at 6 tokens; --max-new-tokens N allows more)\n"
    for line in (["ask", "hello"], ["transcribe", str(media / "talk.wav")]):
        assert main([*line, "-m", tiny, *FEW]) == 0
        assert capsys.readouterr().err == note
        assert main([*line, "-m", tiny, *FEW, "--json"]) == 0
        captured = capsys.readouterr()
        assert json.loads(captured.out)["finish_reason"] == "length" and captured.err == ""


def test_statistics_and_json_tell_of_a_longrope_crossing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_checkpoint(tmp_path, original_max=16, max_positions=256)
    ask = ["ask", "hello", "-m", str(tmp_path), "--temperature", "1", "--seed", "2", "--max-new-tokens", "12"]
    assert main([*ask, "--stats"]) == 0
    assert "LongRoPE crossings: 1" in capsys.readouterr().err
    assert main([*ask, "--stats", "--rope-policy", "pin"]) == 0
    assert "crossings" not in capsys.readouterr().err
    assert main([*ask, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["timing"]["rope_crossings"] == 1


@pytest.mark.parametrize(
    ("image", "audio", "adapters"),
    [(False, False, []), (True, False, ["vision"]), (False, True, ["speech"]), (True, True, ["vision"])],
)
def test_json_answer_says_which_adapter_was_active(
    tiny: str, media: Path, capsys: pytest.CaptureFixture[str], image: bool, audio: bool, adapters: list[str]
) -> None:
    given = ["--image", str(media / "sign.png")] * image + ["--audio", str(media / "talk.wav")] * audio
    assert main(["ask", "what?", "-m", tiny, "--json", *given, *FEW]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["adapters"] == adapters
    assert (answer["usage"]["image_tokens"] > 0, answer["usage"]["audio_tokens"] > 0) == (image, audio)
    assert answer["usage"]["completion_tokens"] <= 6
    assert answer["timing"]["first_token_s"] > 0


def test_streamed_and_json_answers_are_the_same(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = ["ask", "hello", "-m", tiny, "--temperature", "0.8", "--seed", "5", *FEW]
    assert main(drawn) == 0
    streamed = capsys.readouterr().out
    assert main([*drawn, "--json"]) == 0
    text = json.loads(capsys.readouterr().out)["text"]
    assert streamed == text if text.endswith("\n") else streamed == text + "\n"


def test_prompt_may_come_through_a_pipe(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", "hello", "-m", tiny, *FEW]) == 0
    typed = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
    assert main(["ask", "-", "-m", tiny, *FEW]) == 0
    assert capsys.readouterr().out == typed


def test_tools_and_system_text_change_the_prompt(
    tiny: str, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lengths = []
    for more in ([], ["--system", "Be brief."], ["--tools", str(media / "tools.json")]):
        assert main(["ask", "hello", "-m", tiny, "--json", *more, *FEW]) == 0
        lengths.append(json.loads(capsys.readouterr().out)["usage"]["prompt_tokens"])
    assert lengths[0] < lengths[1] < lengths[2]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["ask", "x", "-m", "no/such/model/here"], 6, "no such directory"),
        (["ask", "x", "--image", "gone.png"], 3, "gone.png"),
        (["ask", "x", "--temperature", "-1"], 2, "temperature"),
        (["ask", "x", "--tools", "gone.json"], 2, "gone.json"),
        (["ask", "word " * 400, "--max-new-tokens", "200000"], 4, "context"),
        (["ask", "x", "--device", "abacus"], 2, "abacus"),
        (["show", "pyproject.toml"], 5, "give the directory"),
    ],
)
def test_each_mistake_has_one_line_and_its_exit_code(
    tiny: str, capsys: pytest.CaptureFixture[str], args: list[str], code: int, says: str
) -> None:
    if args[0] == "ask" and "-m" not in args:
        args = [*args, "-m", tiny]
    assert main(args) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("phi4: error: ") and captured.err.count("\n") == 1
    assert says in captured.err


def test_error_is_json_where_a_program_reads(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "x", "-m", tiny, "--image", "gone.png", "--json"]) == 3
    error = json.loads(capsys.readouterr().err)["error"]
    assert (error["type"], error["exit_code"]) == ("InvalidMedia", 3)


@pytest.mark.parametrize(
    "line",
    [["ask", "x", "--image", "gone.png"], ["ask", "x", "--audio", "gone.wav"], ["transcribe", "gone.wav"]],
)
def test_a_missing_file_is_found_before_a_model_is_loaded(
    line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*line, "-m", "no/such/model/here"]) == 3
    assert "gone" in capsys.readouterr().err


def test_a_question_swallowed_by_the_image_option_is_explained(
    tiny: str, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", "--image", str(media / "sign.png"), "What is it?", "-m", tiny]) == 3
    assert "'What is it?' does not exist" in (told := capsys.readouterr().err)
    assert "a question stands before the options" in told


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_line_and_no_traceback(tiny: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command("ask", "hello", "-m", tiny, *FEW), stdout=full, stderr=subprocess.PIPE, timeout=60
        )
    assert done.returncode == 1
    assert done.stderr.decode() == "phi4: error: [Errno 28] No space left on device\n"


def test_transcribe_goes_on_after_a_broken_file(
    tiny: str, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(media / "broken.wav"), str(media / "talk.wav")]
    assert main(["transcribe", *files, "-m", tiny, "--json"]) == 3
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert answer["file"] == files[1] and answer["adapters"] == ["speech"]
    assert "broken.wav" in json.loads(captured.err)["error"]["message"]


def test_transcribe_names_the_files_only_when_there_are_several(
    tiny: str, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = str(media / "talk.wav")
    assert main(["transcribe", talk, "-m", tiny]) == 0
    alone = capsys.readouterr().out
    assert main(["transcribe", talk, talk, "-m", tiny]) == 0
    assert capsys.readouterr().out == f"{talk}: {alone}" * 2


def test_show_reports_a_checkpoint(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", tiny]) == 0
    out = capsys.readouterr().out
    for word in ("original", "text, vision, speech", "adapter speech", "131,072", "Every tensor is there"):
        assert word in out
    assert "\x1b" not in out


def test_show_as_json_counts_parameters_and_attention(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", tiny, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    parts = report["parameters"]
    assert parts["total"] == sum(count for part, count in parts.items() if part != "total")
    assert report["attention"]["chosen"] and "sdpa" in report["attention"]["available"]


def test_show_works_without_torch_in_under_a_second(tiny: str) -> None:
    blocked = (
        "import sys; sys.modules['torch'] = None\n"
        "from phi4.cli.main import main\n"
        f"sys.exit(main(['show', {tiny!r}]))"
    )
    fastest = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, timeout=60)
        fastest = min(fastest, time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
    assert "Every tensor is there" in done.stdout
    assert fastest < 1.0


def test_asking_without_torch_names_the_extra(tiny: str) -> None:
    blocked = (
        "import importlib.util, sys\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n, *a: None if n == 'torch' else real(n, *a)\n"
        "from phi4.cli.main import main\n"
        f"sys.exit(main(['ask', 'x', '-m', {tiny!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, timeout=60)
    assert done.returncode == 7
    assert "pip install '.[torch]'" in done.stderr


def chat(monkeypatch: pytest.MonkeyPatch, tiny: str, *lines: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    return main(["chat", "-m", tiny, *FEW])


def test_chat_answers_lines_obeys_commands_and_survives_mistakes(
    tiny: str, media: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["hello", "/nonsense", "/image gone.png", "/audio", f"/image {media / 'sign.png'}", "what is it?"]
    assert chat(monkeypatch, tiny, *lines, "/help", "/quit", "never reached") == 0
    captured = capsys.readouterr()
    assert "unknown command /nonsense" in captured.err
    assert "gone.png" in captured.err and "/audio needs a file" in captured.err
    assert captured.out.rstrip().endswith("leave (also Ctrl-D)")


def test_chat_remembers_earlier_turns_until_reset(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*lines: str) -> str:
        assert chat(monkeypatch, tiny, *lines) == 0
        return capsys.readouterr().out

    first, alone = said("first"), said("and then?")
    assert said("first", "/reset", "and then?") == first + alone
    assert said("first", "and then?") not in (first + alone, first)


def test_failed_turn_leaves_the_conversation_as_it_was(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_checkpoint(short := Path(tiny).parent / "short", max_positions=64)
    assert chat(monkeypatch, str(short), "hello", "word " * 200, "and then?") == 0
    captured = capsys.readouterr()
    assert "context" in captured.err and captured.err.count("phi4: error: ") == 1
    assert chat(monkeypatch, str(short), "hello", "and then?") == 0
    assert capsys.readouterr().out == captured.out


def test_ctrl_c_stops_the_answer_and_not_the_chat(tiny: str) -> None:
    chat = subprocess.Popen(
        command("chat", "-m", tiny, "--max-new-tokens", "100000"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert chat.stdin and chat.stdout
    chat.stdin.write(b"talk for ever\n")
    chat.stdin.flush()
    assert chat.stdout.read(1)  # the answer has begun
    chat.send_signal(signal.SIGINT)
    out, err = chat.communicate(b"/help\n/quit\n", timeout=60)
    assert chat.returncode == 0, err
    assert b"(stopped)" in err
    assert b"/audio FILE" in out  # still listening


def test_ctrl_c_before_the_answer_begins_leaves_the_chat_alive(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handle = Conversation.handle

    def interrupted(self: Conversation, line: str) -> bool:
        if line == "hello":
            raise KeyboardInterrupt
        return handle(self, line)

    monkeypatch.setattr(Conversation, "handle", interrupted)
    assert chat(monkeypatch, tiny, "hello", "/help", "/quit") == 0
    captured = capsys.readouterr()
    assert captured.err == "(stopped)\n" and "/audio FILE" in captured.out


def test_chat_takes_a_picture_from_the_home_folder_and_says_what_it_took(
    tiny: str, media: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(media))
    assert chat(monkeypatch, tiny, "/image ~/sign.png", "/quit") == 0
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "(sign.png goes with your next message)"
    assert re.fullmatch(r"\(picture sign\.png, 40x24: 2 crops, \d+ tokens \(detail high\)\)", told[1])


def test_cost_of_a_picture_is_told_before_the_answer_and_follows_the_detail(
    tiny: str, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(ramp_picture(200, 100)).save(media / "wide.png")
    ask = ["ask", "what?", "-m", tiny, *FEW, "--image", str(media / "wide.png")]
    tokens = {}
    for detail in ("low", "high"):
        assert main([*ask, "--detail", detail]) == 0
        first = capsys.readouterr().err.splitlines()[0]
        assert main([*ask, "--detail", detail, "--json"]) == 0
        captured = capsys.readouterr()
        answer = json.loads(captured.out)
        (cost,) = answer["pictures"]
        tokens[detail] = answer["usage"]["image_tokens"]
        assert captured.err == "" and (cost["width_px"], cost["height_px"]) == (200, 100)
        assert cost["detail"] == detail and cost["costs"][detail]["tokens"] == tokens[detail]
        own, other = (cost["costs"][d] for d in (detail, {"low": "high", "high": "low"}[detail]))
        assert first == (
            f"picture wide.png, 200x100: {own['crops']} crops, {own['tokens']} tokens (detail {detail}); "
            f"{'high' if detail == 'low' else 'low'}: {other['crops']} crops, {other['tokens']} tokens"
        )
    assert tokens["low"] < tokens["high"]
    assert main([*ask, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["usage"]["image_tokens"] == tokens["high"]


def test_cost_alone_is_told_with_a_measured_time_and_no_answer(
    tiny: str, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ["ask", "what?", "-m", tiny, "--cost"]
    assert main([*ask, "--image", str(media / "sign.png"), str(media / "sign.png")]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert captured.err == "" and len(lines) == 3
    assert re.fullmatch(r"picture sign\.png, 40x24: 2 crops, \d+ tokens, \S+ m?s \(detail high\)", lines[0])
    assert re.match(r"measured: \S+ m?s a crop", lines[2])
    assert main([*ask, "--image", str(media / "sign.png"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["seconds_per_crop"] > 0 and found["pictures"][0]["costs"]["low"]["crops"] == 2
    assert main(ask) == 2
    assert "give --image FILE" in capsys.readouterr().err


def test_ctrl_c_ends_ask_with_130(tiny: str) -> None:
    ask = subprocess.Popen(
        command("ask", "talk for ever", "-m", tiny, "--max-new-tokens", "100000"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert ask.stdout and ask.stdout.read(1)
    ask.send_signal(signal.SIGINT)
    _, err = ask.communicate(timeout=60)
    assert ask.returncode == 130
    assert b"Traceback" not in err


def test_reader_that_leaves_early_causes_no_traceback(tiny: str) -> None:
    ask = subprocess.Popen(
        command("ask", "talk", "-m", tiny, "--max-new-tokens", "3000"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert ask.stdout and ask.stderr and ask.stdout.read(1)
    ask.stdout.close()
    err = ask.stderr.read()
    ask.stderr.close()
    assert ask.wait(timeout=60) == 0
    assert b"Traceback" not in err and b"BrokenPipe" not in err


def test_no_colour_is_honoured_on_a_terminal(tiny: str) -> None:
    pty = pytest.importorskip("pty")
    for variables, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        leader, follower = pty.openpty()
        plain = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm-256color"}
        subprocess.run(
            command("show", tiny),
            stdout=follower,
            stderr=subprocess.DEVNULL,
            env=plain | variables,
            timeout=60,
        )
        os.close(follower)
        out = os.read(leader, 1 << 16)
        os.close(leader)
        assert b"original" in out
        assert (b"\x1b[1m" in out) == coloured
