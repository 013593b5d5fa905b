"""A whole run: runners in turns, limits around them, notes on what could not be had."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from phi4.bench import run as running
from phi4.bench.limits import Reader
from phi4.bench.memory import peak_growth, start_peak
from phi4.bench.report import MACHINE, Row
from phi4.bench.run import calibrated, chosen_runner, measure_limits, measure_tasks, run_bench, thread_notes
from phi4.bench.settings import Settings
from phi4.bench.speeds import Subject
from phi4.bench.starting import start_subject
from phi4.bench.tasks import Task, left_out, longest_prompt, tasks_for
from phi4.errors import InvalidRequest, MissingExtra, ModelNotFound, OutOfMemory


@pytest.fixture(autouse=True)
def _small_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "Reader", partial(Reader, 1 << 20))


def bandwidth(*values: float) -> Row:
    return Row("limits", "memory read", "GB/s", True, {MACHINE: values})


@pytest.mark.parametrize(
    "changes",
    [
        {"repeats": 0},
        {"repeats": 100_000},
        {"runners": ("onnx", "onnx")},
        {"prompts": ()},
        {"prompts": (5, 5)},
        {"rows": (0,)},
        {"steps": 0},
        {"runners": ("torch",), "provider": "openvino"},
        {"runners": ("onnx",), "provider": "openvino", "device": "cpu"},
    ],
)
def test_settings_that_cannot_be_measured_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        replace(Settings(), **changes)


def test_tasks_keep_within_context_parts_and_rows() -> None:
    names = [task.name for task in tasks_for(Settings(), 131072, ("text", "vision", "speech"), 16)]
    assert names[:3] == ["prompt of 128 tokens", "prompt of 512 tokens", "prompt of 2,048 tokens"]
    assert names[3] == "answer after 512, 1 row" and names[6] == "answer after 512, 8 rows"
    assert names[7:] == ["vision, a crop", "speech, 10 s of sound"]
    short = [task.name for task in tasks_for(Settings(), 200, ("text",), 2)]
    assert short == ["prompt of 128 tokens", "answer after 183, 1 row", "answer after 183, 2 rows"]
    assert not tasks_for(Settings(), 10, ("text",), 8)
    assert [longest_prompt(Settings(), context) for context in (131072, 2048, 20)] == [2048, 512, 1]


def test_tasks_are_those_asked_for_and_what_there_is_no_room_for_is_told() -> None:
    settings = Settings(prompts=(64, 4096), steps=100, rows=(2, 32))
    names = [task.name for task in tasks_for(settings, 1000, ("text",), 16)]
    assert names == ["prompt of 64 tokens", "answer after 512, 2 rows"]
    assert list(left_out(settings, 1000, 16)) == [
        "prompt of 4,096 tokens left out: the context is 1,000",
        "32 rows left out: at most 16 go into a step",
    ]
    assert any("answers left out: 100 tokens" in told for told in left_out(settings, 101, 16))
    assert not list(left_out(Settings(), 131072, 16))


@pytest.mark.parametrize(
    ("settings", "devices"),
    [
        (Settings(provider="openvino"), {"onnx": "openvino"}),
        (Settings(device="cuda"), {"torch": "cuda"}),
        (
            Settings(runners=("onnx", "torch"), provider="openvino", device="cuda"),
            {"onnx": "openvino", "torch": "cuda"},
        ),
    ],
)
def test_provider_is_the_device_of_onnx_runtime_alone(settings: Settings, devices: dict[str, str]) -> None:
    assert {runner: settings.device_of(runner) for runner in devices} == devices


def counted(log: list[str], name: str, fails_on: str = "") -> Task:
    """A task that only keeps account of who was asked for a sample."""

    @contextmanager
    def prepare(subject: Subject) -> Iterator[Callable[[], float]]:
        if subject.label == fails_on:
            raise OutOfMemory("no room; close something")
        log.append(f"{subject.label} ready")
        yield lambda: float(log.append(f"{subject.label} {name}") or len(log))
        log.append(f"{subject.label} done")

    return Task("prompt", name, "tokens/s", True, prepare)


def test_runners_take_turns_sample_by_sample() -> None:
    log: list[str] = []
    subjects = [Subject("a", None), Subject("b", None)]  # type: ignore[arg-type]
    told: list[tuple[str, int, int]] = []
    measured = measure_tasks(subjects, [counted(log, "x")], 2, lambda *what: told.append(what), [])
    assert log == ["a ready", "b ready", "a x", "b x", "a x", "b x", "b done", "a done"]
    assert measured[0][1].samples == {"a": (3.0, 5.0), "b": (4.0, 6.0)}
    assert told == [("x", 0, 1)]


def test_runner_without_memory_for_a_cell_is_left_out_of_it_alone() -> None:
    log: list[str] = []
    notes: list[str] = []
    subjects = [Subject("a", None), Subject("b", None)]  # type: ignore[arg-type]
    tasks = [counted(log, "x", fails_on="b"), counted(log, "y")]
    rows = [row for _, row in measure_tasks(subjects, tasks, 1, lambda *what: None, notes)]
    assert [set(row.samples) for row in rows] == [{"a"}, {"a", "b"}]
    assert notes == ["x on b: no room; close something"]


def test_restless_machine_is_noted() -> None:
    notes: list[str] = []
    assert calibrated(bandwidth(40.0, 42.0), bandwidth(41.0), notes) == 41e9 and not notes
    assert calibrated(bandwidth(40.0), bandwidth(20.0), notes) == 30e9
    assert "40.0 GB/s before and 20.0 after" in notes[0]


def test_limits_without_the_extra_leave_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(threads: int) -> None:
        raise MissingExtra("needs onnx-ir; install the extra")

    monkeypatch.setattr(running, "open_products", refuse)
    notes: list[str] = []
    rows = measure_limits(2, 1, notes)
    assert [row.name for row in rows] == [
        "memory read, 1 thread",
        "memory read, 2 threads",
        "product numpy, fp32",
    ]
    assert notes == ["products of ONNX Runtime left out: needs onnx-ir; install the extra"]


def test_different_numbers_of_threads_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert thread_notes(["onnx"], 2) == [] and thread_notes(["torch"], 3) == []
    assert "torch computes with 3 threads" in thread_notes(["onnx", "torch"], 2)[0]


def test_runner_is_chosen_as_loading_does(tiny: Path) -> None:
    assert chosen_runner(Settings(str(tiny))) == "onnx"
    assert chosen_runner(Settings(str(tiny), device="cpu")) == "onnx"
    assert chosen_runner(Settings(str(tiny), dtype="float32")) == "torch"
    assert chosen_runner(Settings("owner/name")) == "torch"
    with pytest.raises(ModelNotFound):
        chosen_runner(Settings("./no/such/model"))


def test_start_loads_as_often_as_asked_and_keeps_one(tiny: Path) -> None:
    start = start_subject(Settings(str(tiny)), "onnx", repeats=3)
    assert len(start.load_s) == len(start.first_token_s) == 3 and min(start.load_s) > 0
    assert start.subject.label == "onnx"


def test_peak_is_growth_since_the_start_or_unknown() -> None:
    before = start_peak()
    with mmap.mmap(-1, 32 << 20) as fresh:  # from the system, not from what the process holds free already
        fresh.write(b"x" * (1 << 20) * 32)
        grown = peak_growth(before)
    assert grown is None or grown > 24 << 20
    assert peak_growth(None) is None


def test_whole_run_measures_both_runners_side_by_side(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHI4_THREADS", "2")
    told: list[str] = []
    settings = Settings(str(tiny), runners=("onnx", "torch"), repeats=2)
    report = run_bench(settings, lambda what, done, total: told.append(what))
    rows = {row.name: row for row in report.rows}
    assert set(report.runners) == {"onnx", "torch"} and "int8" in report.runners["onnx"]
    assert report.machine["threads"].startswith("2 threads on ")
    for name in ("memory read, 1 thread", "memory read, 2 threads", "memory read, 2 threads, after"):
        assert len(rows[name].samples[MACHINE]) == 2
    for name in ("load", "prompt of 512 tokens", "answer after 512, 8 rows", "vision, a crop"):
        assert set(rows[name].samples) == {"onnx", "torch"}
        assert all(len(values) == 2 and min(values) > 0 for values in rows[name].samples.values())
        assert rows[name].ratio("onnx", "torch")
    assert "prompt of 2,048 tokens" not in rows, "the context is 600"
    for runner in ("onnx", "torch"):  # shares follow from the rates sample by sample
        rates, shares = (
            rows[n].samples[runner] for n in ("answer after 512, 1 row", "share of the bandwidth, 1 row")
        )
        assert shares[0] / shares[1] == pytest.approx(rates[0] / rates[1])
    assert told[0] == "limits of the machine" and told[-1] == "limits of the machine, once more"


def test_runner_that_is_not_there_is_refused_before_anything_is_measured(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "measure_limits", lambda *args: pytest.fail("measured"))
    with pytest.raises(InvalidRequest, match="abacus"):
        run_bench(Settings(str(tiny), runners=("abacus",)))
    with pytest.raises(InvalidRequest, match="float32"):
        run_bench(Settings(str(tiny), runners=("onnx",), dtype="float32"))
