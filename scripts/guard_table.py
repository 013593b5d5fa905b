"""The guards of the server as `tests/guards.toml` lists them, and the page that shows them to readers.

    for threat in read_threats(): ...
    page_with(text, threats)            # docs/threats.md with its generated part

A guard is a piece of source that keeps one thing true. The list says what to put in its place so that the
guard is gone and the source still runs, and which tests have to notice.
"""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "tests" / "guards.toml"
PAGE = ROOT / "docs" / "threats.md"
WIDTH = 118
"""Of paragraphs on the page."""
MARK = "<!-- From here on written by `python scripts/without_guards.py --page`, from tests/guards.toml. -->\n"


class BadTable(Exception):
    """An entry that says what cannot be."""


@dataclass(frozen=True)
class Guard:
    """One guard.

    Attributes:
        threat: Id of what it stands against.
        name: Its own name, unique for the threat.
        keeps: What it keeps true, in a few words.
        file: Source file, from the root of the repository.
        old: Text of the guard, which stands there once.
        new: What is put in its place to take the guard out.
        tests: Ids of the tests that have to notice, each of them.
        fails_with: Classes of errors with which they may, beside failed assertions.
    """

    threat: str
    name: str
    keeps: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    fails_with: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Name among all guards."""
        return f"{self.threat}.{self.name}"

    def taken_out_of(self, text: str) -> str:
        """The source without it.

        Raises:
            BadTable: The guard does not stand in it exactly once, or what is left is no Python.
        """
        if text.count(self.old) != 1:
            raise BadTable(f"{self.id}: its text stands {text.count(self.old)} times in {self.file}")
        changed = text.replace(self.old, self.new)
        try:
            compile(changed, self.file, "exec")
        except SyntaxError as error:
            raise BadTable(f"{self.id}: without it {self.file} is no Python: {error}") from None
        return changed


@dataclass(frozen=True)
class Threat:
    """One threat.

    Attributes:
        id: A1, A2, ... are attacks, B1, B2, ... are faults.
        threat: What happens where nobody guards.
        promise: What is promised here.
        guards: What keeps the promise.
    """

    id: str
    threat: str
    promise: str
    guards: tuple[Guard, ...]


def read_threats(path: Path = TABLE) -> tuple[Threat, ...]:
    """The list.

    Raises:
        BadTable: A field is missing or unknown, or a name is there twice.
    """
    entries: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["threats"]
    try:
        threats = tuple(
            Threat(**{**entry, "guards": tuple(_guard(entry["id"], found) for found in entry["guards"])})
            for entry in entries
        )
    except (TypeError, KeyError) as error:
        raise BadTable(f"{path.name}: {error}") from None
    names = [threat.id for threat in threats] + [guard.id for guard in guards_of(threats)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadTable(f"{path.name}: there twice: {', '.join(twice)}")
    return threats


def _guard(threat: str, fields: dict[str, Any]) -> Guard:
    lists = {name: tuple(fields[name]) for name in ("tests", "fails_with") if name in fields}
    return Guard(threat, **{**fields, **lists})


def guards_of(threats: Sequence[Threat]) -> list[Guard]:
    """All guards of some threats."""
    return [guard for threat in threats for guard in threat.guards]


def page_with(text: str, threats: Sequence[Threat]) -> str:
    """A page with everything behind its mark written anew."""
    before, mark, _ = text.partition(MARK)
    if not mark:
        raise BadTable("the page has lost the mark behind which the list is written")
    return before + mark + "".join(_section(threat) for threat in threats)


def _section(threat: Threat) -> str:
    lines = [f"\n## {threat.id}. {threat.threat}", "", textwrap.fill(threat.promise, WIDTH), ""]
    lines += ["| what is kept true | where | what fails without |", "|---|---|---|"]
    for guard in threat.guards:
        lines.append(f"| {guard.keeps} | {_linked(guard.file)} | {'; '.join(map(_test, guard.tests))} |")
    return "\n".join(lines) + "\n"


def _linked(path: str) -> str:
    return f"[`{path.removeprefix('src/phi4/')}`](../{path})"


def _test(node: str) -> str:
    path, _, name = node.partition("::")
    return f"[`{name}`](../{path})"
