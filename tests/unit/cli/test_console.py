"""What reaches the terminal is plain, whole, and cannot steer it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from phi4.cli.console import print_error, print_json, print_text, printable, stdout, working
from phi4.errors import ContextOverflow, InvalidMedia


@dataclass(frozen=True)
class Point:
    x: int
    where: Path


def test_escape_sequences_of_a_model_become_visible_signs() -> None:
    assert printable("a\x1b[2Jb\x07\x9bc") == "a\ufffd[2Jb\ufffd\ufffdc"


def test_text_of_every_language_stays_as_it_is() -> None:
    text = "h\u00e9 \u4f60\u597d \u0645\u0631\u062d\u0628\u0627 \U0001f600\n\tend"
    assert printable(text) == text


def test_piped_text_is_passed_through_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    print_text("a\x1bb", end="")
    assert capsys.readouterr().out == "a\x1bb"


def test_json_is_one_line_and_knows_our_values(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"point": Point(1, Path("a/b")), "map": MappingProxyType({"k": np.int64(3)}), "t": "\u00e9"})
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and "\u00e9" in out
    assert json.loads(out) == {"point": {"x": 1, "where": "a/b"}, "map": {"k": 3}, "t": "\u00e9"}


def test_json_refuses_what_it_cannot_say() -> None:
    with pytest.raises(TypeError, match="object has no JSON form"):
        print_json(object())


def test_error_is_one_line_even_when_its_message_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(InvalidMedia("sign.png is broken:\n  cut after 3 bytes"), as_json=False)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "phi4: error: sign.png is broken: cut after 3 bytes\n"


def test_error_as_json_carries_type_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(InvalidMedia("broken"), as_json=True)
    error = json.loads(capsys.readouterr().err)["error"]
    assert error == {"type": "InvalidMedia", "message": "broken", "exit_code": 3}


def test_pictures_that_take_too_many_tokens_are_told_of_in_the_words_of_options(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_error(ContextOverflow("too long", has_pictures=True), as_json=False)
    print_error(ContextOverflow("too long"), as_json=False)
    seen, read = capsys.readouterr().err.splitlines()
    assert seen.endswith("too long (--detail low, or --max-crops 4)") and read.endswith("too long")


def test_spinner_is_silent_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    with working("loading"):
        pass
    assert capsys.readouterr() == ("", "")


def test_piped_tables_have_no_colour(capsys: pytest.CaptureFixture[str]) -> None:
    stdout().print("[bold red]word[/]")
    assert capsys.readouterr().out == "word\n"
