"""The scripts under `make`: they find a Python, or say in one go what to install."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def shell(repository: Path, *args: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    if path is not None:
        variables["PATH"] = path
    return subprocess.run(args, cwd=repository, env=variables, capture_output=True, text=True, timeout=60)


@pytest.fixture
def bare_path(tmp_path: Path) -> str:
    """A PATH as on a bare machine: the shell's own tools and no Python."""
    for tool in ("sh", "dirname", "command"):
        found = shutil.which(tool)
        if found:
            (tmp_path / tool).symlink_to(found)
    return str(tmp_path)


def test_a_python_with_venv_is_found(repository: Path) -> None:
    done = shell(repository, "sh", "scripts/find-python.sh", sys.executable)
    assert done.returncode == 0
    assert Path(done.stdout.strip()).exists()


def test_machine_without_python_is_told_the_apt_line(repository: Path, bare_path: str) -> None:
    sh = str(Path(bare_path) / "sh")
    done = shell(repository, sh, "scripts/find-python.sh", path=bare_path)
    assert done.returncode == 1 and done.stdout == ""
    assert "there is no python3 on this machine" in done.stderr
    assert "apt-get install -y python3 python3-venv make libespeak-ng1" in done.stderr


def test_unsuitable_python_is_refused_by_name(repository: Path) -> None:
    done = shell(repository, "sh", "scripts/find-python.sh", "/bin/false")
    assert done.returncode == 1
    assert "PYTHON=/bin/false" in done.stderr


def test_old_python_is_named_with_its_version(repository: Path, bare_path: str) -> None:
    old = Path(bare_path) / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
    old.chmod(0o755)
    done = shell(repository, str(Path(bare_path) / "sh"), "scripts/find-python.sh", path=bare_path)
    assert done.returncode == 1
    assert "found Python 3.9.2" in done.stderr and "needs Python 3.11" in done.stderr


def test_ci_and_readme_name_the_same_packages_as_the_script(repository: Path) -> None:
    line = shell(repository, "sh", "scripts/system-packages.sh", "--line").stdout.strip()
    assert line.startswith("apt-get install -y python3 ")
    assert "scripts/system-packages.sh --install" in (repository / ".ci" / "run").read_text()
    assert line.removeprefix("apt-get install -y ") in (repository / "README.md").read_text()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_alone_lists_every_target(repository: Path) -> None:
    done = shell(repository, "make")
    for target in ("run", "test", "check", "parity", "slow", "nano", "examples", "clean"):
        assert f"make {target} " in done.stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_run_installs_with_constraints_and_shows_the_demo(repository: Path, tmp_path: Path) -> None:
    done = shell(repository, "make", "-n", "run", f"VENV={tmp_path / 'venv'}")
    assert done.returncode == 0, done.stderr
    assert re.search(r"-c constraints.txt +-e \.\n", done.stdout), "the base install, without torch"
    assert done.stdout.rstrip().endswith("phi4 demo")
    assert "--extra-index-url" not in done.stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_second_run_installs_nothing(repository: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    for stamp in ("bin/python", ".installed", ".installed-dev"):
        (venv / stamp).touch()
    assert "pip install" not in shell(repository, "make", "-n", "test", f"VENV={venv}").stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_other_torch_index_is_added_on_request(repository: Path, tmp_path: Path) -> None:
    given = [f"VENV={tmp_path / 'venv'}", "TORCH_INDEX=https://example.org/cpu"]
    assert (
        "--extra-index-url https://example.org/cpu" in shell(repository, "make", "-n", "test", *given).stdout
    )
