"""The README's commands and its Python, run as they stand there, on a tiny model."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import phi4
from phi4.cli.main import build_parser, main
from phi4.testing.tiny import write_tiny_checkpoint


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_checkpoint(folder)
    return str(folder)


def blocks(repository: Path, language: str) -> list[str]:
    text = (repository / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(repository: Path) -> list[list[str]]:
    lines = [line for line in "\n".join(blocks(repository, "sh")).splitlines() if line.startswith("phi4 ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_every_command_of_the_readme_is_understood(repository: Path) -> None:
    found = commands(repository)
    assert len(found) >= 5
    for line in found:
        build_parser().parse_args(line)


def test_commands_about_the_examples_run(
    tiny: str, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repository)
    about = [line for line in commands(repository) if any("examples/media" in word for word in line)]
    assert {line[0] for line in about} == {"ask", "transcribe"}
    for line in about:
        assert main([*line, "-m", tiny, "--max-new-tokens", "4"]) == 0, line
        assert capsys.readouterr().out


def test_python_of_the_readme_runs(
    tiny: str, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = blocks(repository, "python")[0]
    assert code.count('phi4.load("nano")') == 1
    monkeypatch.chdir(repository)
    names: dict[str, object] = {}
    exec(compile(code.replace('"nano"', repr(tiny)), "README.md", "exec"), names)
    assert isinstance(names["answer"], phi4.Completion)
    assert capsys.readouterr().out.count("\n") >= 4


def test_the_readmes_client_is_answered(
    server: Any, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, code = blocks(repository, "python")
    assert code.count("http://127.0.0.1:8000") == 1
    monkeypatch.chdir(repository)
    names: dict[str, Any] = {}
    exec(compile(code.replace("http://127.0.0.1:8000", server.url), "README.md", "exec"), names)
    names["client"].close()
    streamed, subtitles = capsys.readouterr().out.split("1\n00:00:", 1)
    assert streamed.strip() and " --> " in subtitles
