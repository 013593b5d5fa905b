"""The workflow for GitHub covers three systems, checks what `make check` does, and admits it was not run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from phi4.cli.main import build_parser

yaml = pytest.importorskip("yaml")
PROGRAMS = ("python -m ", "lint-imports", "sudo sh scripts/system-packages.sh --install")


@pytest.fixture(scope="module")
def text(repository: Path) -> str:
    return (repository / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def jobs(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text)["jobs"]
    return found


def lines(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_every_job_runs_on_three_systems(jobs: dict[str, Any]) -> None:
    for job in jobs.values():
        systems = {name.partition("-")[0] for name in job["strategy"]["matrix"]["os"]}
        assert systems == {"ubuntu", "macos", "windows"}


def test_file_says_that_it_has_not_been_run(text: str) -> None:
    assert "has NOT been run" in text.partition("name: ci")[0]


def test_steps_are_single_programs_that_every_shell_reads_alike(jobs: dict[str, Any]) -> None:
    for job in jobs.values():
        for line in lines(job):
            assert line.startswith(PROGRAMS) and not re.search(r"[|&;<>$`'\\\n]", line), line


def test_checks_are_those_of_make(jobs: dict[str, Any], repository: Path) -> None:
    recipe = (repository / "Makefile").read_text().partition("\ncheck: ")[2].partition("\n\n")[0]
    asked = [line.partition("$(BIN)/")[2] for line in recipe.splitlines()[1:]]
    run = [line.removeprefix("python -m ") for line in lines(jobs["test"])]
    assert asked and set(asked) <= set(run) and "pytest" in run


def test_commands_of_the_job_without_torch_are_understood(jobs: dict[str, Any]) -> None:
    job = jobs["without-torch"]
    assert not any("torch" in line for line in lines(job))
    verbs = [line.removeprefix("python -m phi4 ") for line in lines(job) if "-m phi4 " in line]
    assert {"export", "ask", "doctor"} <= {verb.split()[0] for verb in verbs}
    for verb in verbs:
        build_parser().parse_args(re.findall(r'"[^"]*"|\S+', verb))
