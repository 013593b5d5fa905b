"""A whole run: the machine's limits, the models in turns, the bandwidth once more.

Runners take turns sample by sample, so whatever else the machine does meanwhile meets them alike. The
bandwidth is read before and after; when the two differ, a note says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from phi4.bench.limits import Reader, numpy_matmul_rate, thread_counts
from phi4.bench.machine import machine_facts, runner_facts, torch_threads
from phi4.bench.products import open_products
from phi4.bench.report import MACHINE, RESTLESS, Report, Row
from phi4.bench.settings import Settings
from phi4.bench.speeds import Subject
from phi4.bench.starting import Start, start_subject
from phi4.bench.tasks import FIRST_PROMPT, Task, left_out, longest_prompt, tasks_for
from phi4.bench.traffic import step_bytes
from phi4.errors import MissingExtra, OutOfMemory
from phi4.onnx.machine.threads import thread_count
from phi4.registry import check_runner, find_form, with_provider
from phi4.types import Modality

Told = Callable[[str, int, int], None]
"""Hears what comes next: in words, how many parts are done, and of how many (0 = not known yet)."""
GIGA = 1e9
LOADS = 3
"""Times a model is loaded, at most: large ones take long."""


def run_bench(settings: Settings, told: Told = lambda what, done, total: None) -> Report:
    """Measure machine and model.

    Args:
        settings: What to measure.
        told: Hears of the progress.

    Raises:
        ModelNotFound: As `phi4.load`.
        InvalidArtifact: As `phi4.load`.
        InvalidRequest: As `phi4.load`.
        MissingExtra: A runner is not installed.
    """
    runners = settings.runners or (chosen_runner(settings),)
    for runner in runners:  # before minutes are spent; also imports the backend, which no figure counts
        device = settings.device_of(runner)
        check_runner(runner, device=device, dtype=settings.dtype, attention=settings.attention)
    threads = thread_count()
    notes = thread_notes(runners, threads)
    told("limits of the machine", 0, 0)
    limits = measure_limits(threads, settings.repeats, notes)
    starts = []
    for runner in runners:
        told(f"loading {settings.model} for {runner}", 0, 0)
        starts.append(start_subject(settings, runner, repeats=min(LOADS, settings.repeats)))
    subjects = [start.subject for start in starts]
    tasks = common_tasks(settings, subjects, notes)
    measured = measure_tasks(subjects, tasks, settings.repeats, told, notes)
    told("limits of the machine, once more", 1, 1)
    after = read_row(threads, settings.repeats, "after")
    bandwidth = calibrated(limits[len(thread_counts(threads)) - 1], after, notes)
    rows = [*limits, after, *start_rows(settings, starts), *with_shares(measured, subjects, bandwidth)]
    return Report(
        settings.model,
        machine_facts(threads),
        {subject.label: runner_facts(subject.model) for subject in subjects},
        tuple(rows),
        tuple(notes),
    )


def thread_notes(runners: Sequence[str], threads: int) -> list[str]:
    """A note when PyTorch computes with another number of threads than everything else here."""
    found = torch_threads(os.environ)
    if "torch" not in runners or found == threads:
        return []
    return [f"torch computes with {found} threads (OMP_NUM_THREADS), all else with {threads} (PHI4_THREADS)"]


def chosen_runner(settings: Settings) -> str:
    """The runner `phi4.load` chooses for these settings."""
    runner, device = with_provider(None, settings.device, settings.provider)
    options = {"device": device, "dtype": settings.dtype, "attention": settings.attention}
    return find_form(settings.model, runner, **options)[0]


def measure_limits(threads: int, repeats: int, notes: list[str]) -> list[Row]:
    """Bandwidth for each number of threads, then products; what cannot be measured becomes a note."""
    rows = [read_row(count, repeats) for count in thread_counts(threads)]
    numpy_matmul_rate()
    rates = {"numpy, fp32": [numpy_matmul_rate() for _ in range(repeats)]}
    try:
        with open_products(threads) as products:
            for name, rate in products.items():
                rates[name] = [rate() for _ in range(repeats)]
    except MissingExtra as error:
        notes.append(f"products of ONNX Runtime left out: {error}")
    for name, values in rates.items():
        scaled = tuple(value / GIGA for value in values)
        rows.append(Row("limits", f"product {name}", "GOP/s", True, {MACHINE: scaled}))
    return rows


def read_row(threads: int, repeats: int, when: str = "") -> Row:
    """The bandwidth of reading memory."""
    with Reader() as reader:
        reader.rate(threads)
        values = tuple(reader.rate(threads) / GIGA for _ in range(repeats))
    name = f"memory read, {threads} thread{'s' if threads > 1 else ''}{f', {when}' if when else ''}"
    return Row("limits", name, "GB/s", True, {MACHINE: values})


def calibrated(before: Row, after: Row, notes: list[str]) -> float:
    """Bytes a second to judge by: the mean of both readings."""
    first, second = (row.median(MACHINE) or 0.0 for row in (before, after))
    if abs(first - second) > RESTLESS * max(first, second):
        notes.append(
            f"the bandwidth was {first:.1f} GB/s before and {second:.1f} after: "
            "something else ran, so take the figures as rough"
        )
    return (first + second) / 2 * GIGA


def common_tasks(settings: Settings, subjects: Sequence[Subject], notes: list[str]) -> list[Task]:
    """What every subject can do; what was asked for beyond that becomes a note."""
    infos = [subject.runner.info for subject in subjects]
    modalities: list[Modality] = [
        part for part in infos[0].modalities if all(part in info.modalities for info in infos)
    ]
    context, max_rows = min(info.max_context_tokens for info in infos), min(info.max_rows for info in infos)
    notes += left_out(settings, context, max_rows)
    if settings.steps != Settings.steps:
        notes.append(f"answers: {settings.steps:,} tokens a sample")
    return tasks_for(settings, context, modalities, max_rows)


def measure_tasks(
    subjects: Sequence[Subject], tasks: Sequence[Task], repeats: int, told: Told, notes: list[str]
) -> list[tuple[Task, Row]]:
    """All cells, runners in turns; a subject without memory for one is left out of it, with a note."""
    measured = []
    for done, task in enumerate(tasks):
        told(task.name, done, len(tasks))
        samples: dict[str, list[float]] = {}
        with ExitStack() as stack:
            timers = []
            for subject in subjects:
                try:
                    timers.append((subject.label, stack.enter_context(task.prepare(subject))))
                except OutOfMemory as error:
                    notes.append(f"{task.name} on {subject.label}: {error}")
            for _ in range(repeats):
                for label, sample in timers:
                    samples.setdefault(label, []).append(sample())
        values = {label: tuple(found) for label, found in samples.items()}
        measured.append((task, Row(task.group, task.name, task.unit, task.more_is_better, values)))
    return measured


def start_rows(settings: Settings, starts: Sequence[Start]) -> list[Row]:
    """Loading, first token, memory."""
    loads = {start.subject.label: tuple(start.load_s) for start in starts}
    firsts = {start.subject.label: tuple(start.first_token_s) for start in starts}
    peaks = {
        start.subject.label: (start.peak_bytes / 1e6,) for start in starts if start.peak_bytes is not None
    }
    context = min(start.subject.runner.info.max_context_tokens for start in starts)
    rows = [
        Row("start", "load", "s", False, loads),
        Row("start", f"first token after loading, prompt of {FIRST_PROMPT}", "s", False, firsts),
    ]
    if peaks:
        name = f"peak memory, prompt of {longest_prompt(settings, context):,}"
        rows.append(Row("memory", name, "MB", False, peaks))
    return rows


def with_shares(
    measured: Sequence[tuple[Task, Row]], subjects: Sequence[Subject], bandwidth: float
) -> list[Row]:
    """The measured rows, each of decoding followed by the share of the bandwidth its steps read with."""
    rows = []
    for task, row in measured:
        rows.append(row)
        if task.rows:
            shares = {
                subject.label: _shares(task, row, subject, bandwidth)
                for subject in subjects
                if subject.label in row.samples
            }
            name = f"share of the bandwidth, {task.rows} row{'s' if task.rows > 1 else ''}"
            rows.append(Row("answer", name, "%", True, shares))
    return rows


def _shares(task: Task, row: Row, subject: Subject, bandwidth: float) -> tuple[float, ...]:
    model = subject.model
    nbytes = step_bytes(model.config, model.info, model.path, task.rows, task.length)
    return tuple(100 * nbytes * rate / task.rows / bandwidth for rate in row.samples[subject.label])
