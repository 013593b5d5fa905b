"""Loading does two things at once, and fails as if it did one after the other."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import phi4
from phi4 import api
from phi4.checkpoint import write_manifest
from phi4.engine.runner import ModelRunner
from phi4.errors import InvalidRequest, Phi4Error
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.registry import find_form
from phi4.testing.tiny import write_tiny_checkpoint
from phi4.together import at_once


def test_both_run_at_once_and_each_result_has_its_place() -> None:
    both = threading.Barrier(2, timeout=60)

    def wait(name: str) -> str:
        both.wait()
        return name

    assert at_once(lambda: wait("first"), lambda: wait("second")) == ("first", "second")


def test_first_runs_in_the_thread_of_the_caller() -> None:
    first, second = at_once(threading.current_thread, threading.current_thread)
    assert first is threading.current_thread() and second is not first


@pytest.mark.parametrize(
    ("broken", "seen"), [(("first", "second"), "first"), (("first",), "first"), (("second",), "second")]
)
def test_error_of_the_first_comes_out_even_when_the_second_fails_earlier(
    broken: tuple[str, ...], seen: str
) -> None:
    over = threading.Event()

    def run(name: str) -> None:
        if name == "first":
            assert over.wait(60)
        over.set()
        if name in broken:
            raise ValueError(name)

    with pytest.raises(ValueError, match=seen):
        at_once(lambda: run("first"), lambda: run("second"))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    _, found = find_form("nano", "onnx")
    return Path(shutil.copytree(Path(str(found)), tmp_path / "package"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    write_tiny_checkpoint(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("form", ["package", "checkpoint"])
@pytest.mark.parametrize(("broken", "says"), [(True, r"tokenizer\.json"), (False, "no-adapter")])
def test_broken_tokenizer_is_told_before_an_absent_adapter(
    form: str, broken: bool, says: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(form)
    if broken:
        (folder / "tokenizer.json").write_text("{")
        write_manifest(folder)
    with pytest.raises(Phi4Error, match=says):
        phi4.load(folder, adapter=folder / "no-adapter")


def test_choice_the_model_cannot_have_is_told_although_its_runner_opens(package: Path) -> None:
    with pytest.raises(InvalidRequest, match="max_crops is 99"):
        phi4.load(package, max_crops=99)


@pytest.mark.parametrize(("form", "beside"), [("package", True), ("checkpoint", False)])
def test_sessions_open_while_the_tokenizer_is_read_but_torch_stays_in_the_callers_thread(
    form: str, beside: bool, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder: Path = request.getfixturevalue(form)
    threads: dict[str, threading.Thread] = {}
    opened = threading.Event()
    read_tokenizer, open_runner = Phi4Tokenizer.load, api.open_runner

    def reading(directory: Path, vocab_size: int) -> Phi4Tokenizer:
        assert not beside or opened.wait(60), "the runner waits for the tokenizer"
        threads["tokenizer"] = threading.current_thread()
        return read_tokenizer(directory, vocab_size)

    def opening(*args: object, **options: object) -> ModelRunner:
        runner: Callable[..., ModelRunner] = open_runner
        threads["runner"] = threading.current_thread()
        opened.set()
        return runner(*args, **options)

    monkeypatch.setattr(Phi4Tokenizer, "load", reading)
    monkeypatch.setattr(api, "open_runner", opening)
    phi4.load(folder)
    assert threads["tokenizer"] is threading.current_thread()
    assert (threads["runner"] is threading.current_thread()) == (not beside)
