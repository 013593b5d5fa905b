"""The scratch folder: makes files when they are needed, within a limit of disk, and notes what that took.

A file under its own name is complete; `NAME.made.json` beside it says how it was made. One that cannot be
made is tried again by the next run.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.artefacts import ARTEFACTS, Artefact
from harness.environments import Environments, NotHere
from harness.processes import Ended, available_bytes, last_words, run_watched, said_by_code
from harness.scale import Scale

MAKING = "making-"
_SPARE_BYTES = 1e9


class Workbench:
    """Files of one scale.

    Args:
        root: The scratch folder.
        scale: Sizes.
        environments: Where commands run.
        limit_bytes: Disk that may be taken under `root`.

    Attributes:
        wanted: Artefacts that will still be needed; others may be deleted to make room.
    """

    def __init__(self, root: Path, scale: Scale, environments: Environments, limit_bytes: float) -> None:
        self.folder = root / scale.name
        self.logs = self.folder / "logs"
        self.wanted: Collection[str] = frozenset(ARTEFACTS)
        self._scale, self._environments, self._limit = scale, environments, limit_bytes
        self.logs.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """An artefact, made if it is not there.

        Raises:
            NotHere: It cannot be made, with the reason.
        """
        if not self.has(name):
            self._make(ARTEFACTS[name])
        return self.folder / name

    def has(self, name: str) -> bool:
        """Whether an artefact is there and complete."""
        return (self.folder / name).exists() and self._note(name).is_file()

    def made(self, name: str) -> dict[str, Any]:
        """What making an artefact took: command, seconds, peak of memory, bytes; makes it if needed.

        Raises:
            NotHere: See `path`.
        """
        self.path(name)
        found: dict[str, Any] = json.loads(self._note(name).read_text(encoding="utf-8"))
        return found

    def size(self) -> int:
        """Bytes that all files take."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())

    def _make(self, artefact: Artefact) -> None:
        paths = {name: str(self.path(name)) for name in artefact.needs}
        python = self._environments.python(artefact.environment)
        self._check_memory(artefact)
        self._make_room(artefact)
        out = self.folder / f"{MAKING}{artefact.name}"
        resumed = out.exists() and artefact.resumable
        if not resumed:
            _delete(out)
        words = {
            "out": str(out),
            "python": str(python),
            "bin": str(python.parent),
            "threads": str(self._environments.threads),
            "seconds": str(self._scale.recording_s),
            "scale": self._scale.name,
        }
        command = [_filled(part, words | paths) for part in artefact.command]
        print(f"making {artefact.name}: {' '.join(command)}", file=sys.stderr)
        log = self.logs / f"make-{artefact.name}.log"
        ended = run_watched(command, self._environments.variables(artefact.environment), log)
        self._keep(artefact, command, ended, out, log, resumed)

    def _keep(
        self, artefact: Artefact, command: list[str], ended: Ended, out: Path, log: Path, resumed: bool
    ) -> None:
        """Give a finished artefact its name, or say why there is none."""
        if ended.code or not out.exists():
            reason = f"{said_by_code(ended.code)}: {last_words(log)}"
            if not artefact.resumable:
                self._sweep()
            raise NotHere(f"{artefact.name} could not be made: {reason}")
        target = self.folder / artefact.name
        _delete(target)
        out.rename(target)
        self._sweep()
        nbytes = sum(file.stat().st_size for file in (target, *target.rglob("*")) if file.is_file())
        facts = asdict(ended) | {"bytes": nbytes, "resumed": resumed, "command": " ".join(command)}
        facts["when"] = time.strftime("%FT%TZ", time.gmtime())
        for name in artefact.then_drop:  # a step on the way: what it took counts
            facts = _together(self.made(name), facts)
        self._note(artefact.name).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        for name in artefact.then_drop:
            self._drop(name)

    def _check_memory(self, artefact: Artefact) -> None:
        need, there = artefact.memory(self._scale), available_bytes()
        if need > there:
            raise NotHere(
                f"making {artefact.name} takes about {need / 1e9:.0f} GB of memory, {there / 1e9:.1f} GB are "
                "available"
            )

    def _make_room(self, artefact: Artefact) -> None:
        """Delete what nobody will need until there is room under the limit and on the disk."""
        need = artefact.room(self._scale)
        held = [name for name in ARTEFACTS if (self.folder / name).exists()]
        spare = [name for name in held if name not in self.wanted and name not in artefact.needs]
        while self._lacks(need) > 0 and spare:
            self._drop(spare.pop(0))
        lacks = self._lacks(need)
        if lacks > 0:
            raise NotHere(
                f"making {artefact.name} takes {need / 1e9:.1f} GB of disk, {lacks / 1e9:.1f} GB more than "
                "there are: free some space, give another --scratch, or raise --limit-gb"
            )

    def _lacks(self, need: float) -> float:
        under_limit = self._limit - self.size()
        on_disk = shutil.disk_usage(self.folder).free - _SPARE_BYTES
        return need - min(under_limit, on_disk)

    def _drop(self, name: str) -> None:
        print(f"deleting {self.folder / name}", file=sys.stderr)
        self._note(name).unlink(missing_ok=True)
        _delete(self.folder / name)

    def _sweep(self) -> None:
        """Delete what a command left half done beside its result."""
        for left in self.folder.glob(f"{MAKING}*"):
            _delete(left)

    def _note(self, name: str) -> Path:
        return self.folder / f"{name}.made.json"


def needed_for(names: Collection[str]) -> frozenset[str]:
    """Artefacts and all they are made of."""
    found: set[str] = set()
    for name in names:
        found |= {name, *needed_for(ARTEFACTS[name].needs)}
    return frozenset(found)


def _together(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """What two commands took, one after the other."""
    return second | {
        "seconds": first["seconds"] + second["seconds"],
        "peak_bytes": max(first["peak_bytes"], second["peak_bytes"]),
        "resumed": first["resumed"] or second["resumed"],
        "command": f"{first['command']} && {second['command']}",
    }


def _filled(part: str, words: dict[str, str]) -> str:
    """A part of a command with paths and numbers in place of names in braces."""
    for name, value in words.items():
        part = part.replace("{" + name + "}", value)
    return part


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
