"""The list of guards is true as it stands, and what takes them out notices what it should.

`make guards` takes out all of them; here a few are, for real.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from guard_table import PAGE, ROOT, BadTable, Guard, Threat, guards_of, page_with, read_threats

THREATS = read_threats()
GUARDS = guards_of(THREATS)
ROWS = {
    "A1", "A2", "A4", "A5", "A6", "A8", "A9", "A10", "A11", "A13", "A15", "A16", "A22", "A23", "A29", "A30",
    "A31", "A33", "B1", "B3", "B4", "B6", "B7", "B8", "B11",
}  # fmt: skip
"""What a server of strangers has to stand; docs/threats.md."""
SLICE = ("A8.size-first", "A23.constant-time", "B11.one-line-events")
IDLE = """
[[threats]]
id = "X1"
threat = "none"
promise = "none"

[[threats.guards]]
name = "idle"
keeps = "nothing"
file = "src/phi4/processing/media.py"
old = "# Without O_NONBLOCK, opening"
new = "# Opening"
tests = ["tests/unit/processing/test_media.py::test_folder_is_refused"]

[[threats.guards]]
name = "broken"
keeps = "the source"
file = "src/phi4/processing/media.py"
old = "    if not stat.S_ISREG(status.st_mode):"
new = "    if not nowhere.S_ISREG(status.st_mode):"
tests = ["tests/unit/processing/test_media.py::test_folder_is_refused"]
"""


def without(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script."""
    command = [sys.executable, str(ROOT / "scripts" / "without_guards.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def test_every_row_has_a_promise_and_guards() -> None:
    assert {threat.id for threat in THREATS} == ROWS
    assert all(threat.promise and threat.guards for threat in THREATS)
    assert all(guard.keeps and guard.tests for guard in GUARDS)


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.id)
def test_a_guard_stands_once_and_the_source_is_python_without_it(guard: Guard) -> None:
    whole = (ROOT / guard.file).read_text(encoding="utf-8")
    assert guard.file.startswith("src/phi4/") and guard.taken_out_of(whole) != whole


def test_every_named_test_exists() -> None:
    known: dict[str, set[str]] = {}
    for node in {node for guard in GUARDS for node in guard.tests}:
        path, _, name = node.partition("::")
        if path not in known:
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            known[path] = {item.name for item in tree.body if isinstance(item, ast.FunctionDef)}
        assert name in known[path], node


def test_page_says_what_the_list_says() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page_with(text, THREATS) == text, "write it anew: python scripts/without_guards.py --page"


def test_a_slice_of_the_guards_is_missed_when_they_are_gone() -> None:
    done = without(*SLICE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" noticed (") == len(SLICE)


def test_a_guard_nobody_misses_and_source_that_breaks_are_told_apart(tmp_path: Path) -> None:
    table = tmp_path / "guards.toml"
    table.write_text(IDLE)
    done = without("--list", str(table))
    assert done.returncode == 1, done.stdout
    assert "X1.idle" in done.stdout and "NOT noticed by tests/unit" in done.stdout
    assert "test_folder_is_refused ended with NameError" in done.stdout
    assert "0 of 2 guards" in done.stdout


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("not there at all", "x", "0 times"),
        ("import", "import", "times"),
        ("def open_media(", "def (", "no Python"),
    ],
)
def test_an_entry_that_cannot_be_is_refused(old: str, new: str, why: str) -> None:
    guard = Guard("X1", "wrong", "nothing", "src/phi4/processing/media.py", old, new, ("tests/a.py::test_a",))
    with pytest.raises(BadTable, match=why):
        guard.taken_out_of((ROOT / guard.file).read_text(encoding="utf-8"))


def test_names_that_are_there_twice_and_pages_without_a_mark_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "guards.toml"
    table.write_text(IDLE + IDLE)
    with pytest.raises(BadTable, match="there twice: X1"):
        read_threats(table)
    with pytest.raises(BadTable, match="mark"):
        page_with("# A page\n", (Threat("X1", "none", "none", ()),))
