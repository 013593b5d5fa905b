"""Files are made once, tried again when that failed, and deleted only when nobody needs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness.artefacts import ARTEFACTS, Artefact
from harness.environments import Environments, NotHere
from harness.programs import PROGRAMS
from harness.scale import QUICK
from harness.workbench import Workbench, needed_for

pytestmark = pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="memory is read from /proc")
ROOM = 1e9


def artefact(name: str, code: str, needs: tuple[str, ...] = (), **more: object) -> Artefact:
    """One that a line of Python makes; `out` is where."""
    command = ("{python}", "-c", f"import sys, pathlib; out = pathlib.Path(sys.argv[1]); {code}", "{out}")
    return Artefact(name, "ours", (*command, *("{" + need + "}" for need in needs)), needs=needs, **more)  # type: ignore[arg-type]


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> dict[str, Artefact]:
    """Small artefacts in place of gigabytes."""
    found = {
        item.name: item
        for item in (
            artefact("source", "out.write_bytes(b'x' * 1000)"),
            artefact("copy", "out.write_bytes(pathlib.Path(sys.argv[2]).read_bytes())", ("source",)),
            artefact("step", "out.write_bytes(b's')", ("source",)),
            artefact("last", "out.write_bytes(b'l')", ("step",), then_drop=("step",)),
            artefact("broken", "sys.exit('no such format')"),
            artefact("empty", "pass"),
            artefact("folder", "out.mkdir(exist_ok=True); (out / 'a').write_text('a')", resumable=True),
        )
    }
    monkeypatch.setattr("harness.workbench.ARTEFACTS", found)
    return found


def bench(root: Path, limit: float = ROOM) -> Workbench:
    return Workbench(root, QUICK, Environments(root / "peers", 1), limit)


def test_artefact_is_made_once_after_what_it_is_made_of(
    catalogue: dict[str, Artefact], tmp_path: Path
) -> None:
    first = bench(tmp_path)
    path = first.path("copy")
    assert path.read_bytes() == b"x" * 1000 and (tmp_path / "quick" / "source").is_file()
    made = first.made("copy")
    assert made["bytes"] == 1000 and made["seconds"] > 0 and made["resumed"] is False
    stamp = path.stat().st_mtime_ns
    assert bench(tmp_path).path("copy").stat().st_mtime_ns == stamp


def test_file_without_its_note_is_not_trusted(catalogue: dict[str, Artefact], tmp_path: Path) -> None:
    path = bench(tmp_path).path("source")
    path.write_bytes(b"half")
    (path.parent / "source.made.json").unlink()
    assert bench(tmp_path).path("source").read_bytes() == b"x" * 1000


@pytest.mark.parametrize(("name", "reason"), [("broken", "no such format"), ("empty", "status 0")])
def test_failure_says_why_and_is_tried_again(
    name: str, reason: str, catalogue: dict[str, Artefact], tmp_path: Path
) -> None:
    with pytest.raises(NotHere, match=reason):
        bench(tmp_path).path(name)
    catalogue[name] = artefact(name, "out.write_bytes(b'now')")
    assert bench(tmp_path).path(name).read_bytes() == b"now"


def test_step_on_the_way_is_dropped_and_counts(catalogue: dict[str, Artefact], tmp_path: Path) -> None:
    made = bench(tmp_path).made("last")
    assert " && " in made["command"]
    assert not (tmp_path / "quick" / "step").exists()


def test_only_what_nobody_needs_is_deleted_to_make_room(
    catalogue: dict[str, Artefact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.artefacts._QUICK_BYTES", 5000)
    tight = bench(tmp_path, limit=7500)
    tight.path("copy")
    tight.wanted = {"copy", "folder"}
    tight.path("folder")
    assert (tmp_path / "quick" / "copy").is_file() and not (tmp_path / "quick" / "source").exists()
    tight.wanted = {"copy", "folder", "last"}
    monkeypatch.setattr("harness.artefacts._QUICK_BYTES", 7500)
    with pytest.raises(NotHere, match="--limit-gb"):
        tight.path("last")
    assert (tmp_path / "quick" / "copy").is_file()


def test_stopped_command_that_can_go_on_finds_what_it_left(
    catalogue: dict[str, Artefact], tmp_path: Path
) -> None:
    first = bench(tmp_path)
    left = first.folder / "making-folder"
    left.mkdir()
    (left / "earlier").write_text("kept")
    assert first.made("folder")["resumed"] is True
    assert sorted(file.name for file in first.path("folder").iterdir()) == ["a", "earlier"]


def test_environment_that_is_missing_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(NotHere, match="make bench-peers"):
        Environments(tmp_path, 2).python("llamacpp")


def test_peers_get_threads_and_no_python_path_of_ours(tmp_path: Path) -> None:
    inherited = {"PYTHONPATH": "/elsewhere", "PYTHONHOME": "/x", "HOME": "/h"}
    environments = Environments(tmp_path, 3)
    theirs, ours = (environments.variables(name, inherited) for name in ("llamacpp", "ours"))
    assert theirs["OMP_NUM_THREADS"] == theirs["PHI4_THREADS"] == "3" and theirs["HOME"] == "/h"
    assert "PYTHONHOME" not in theirs and "/elsewhere" not in theirs["PYTHONPATH"]
    assert ours["PYTHONPATH"].endswith("/elsewhere")


def test_every_program_opens_an_artefact_that_can_be_made() -> None:
    for program in PROGRAMS.values():
        assert program.artefact in ARTEFACTS
        assert (Path(__file__).parents[3] / "benchmarks" / "peers" / f"{program.module}.py").is_file()
    for item in ARTEFACTS.values():
        assert "{out}" in " ".join(item.command)
        assert all("{" + need + "}" in " ".join(item.command) for need in item.needs)
    assert needed_for(["mini-q4_0.gguf"]) == {"mini-q4_0.gguf", "mini-bf16.gguf", "mini"}


def test_notes_are_plain_json(catalogue: dict[str, Artefact], tmp_path: Path) -> None:
    bench(tmp_path).path("source")
    note = json.loads((tmp_path / "quick" / "source.made.json").read_text())
    assert {"code", "seconds", "peak_bytes", "bytes", "command", "when"} <= set(note)
