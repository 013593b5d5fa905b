"""Takes the guards of the server out, one at a time, and demands that tests notice.

    python scripts/without_guards.py                     # all: `make guards`
    python scripts/without_guards.py A23 B4.turn         # those of a threat, or one
    python scripts/without_guards.py --page              # write docs/threats.md anew

Guards and tests are listed in `tests/guards.toml`. The tests run first as they are and have to pass. Then a
copy of `src` loses one guard at a time, and each test that is named for it has to fail: by an assertion, or
with an error the list expects, and not because the source is broken. The checkout itself is never changed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from guard_table import PAGE, ROOT, TABLE, BadTable, Guard, guards_of, page_with, read_threats

MINUTES = 30.0
TEST_S = 90
"""Longest test: what hangs without its guard is no answer."""
NOTICED = "noticed"
_FAILED = ("AssertionError", "Failed")
"""Failed assertions, and errors that were expected and did not come."""


@dataclass(frozen=True)
class Phase:
    """How one phase of a test ended: "setup", "call" or "teardown"; the class of its error, None = well."""

    test: str
    phase: str
    error: str | None


@dataclass(frozen=True)
class Verdict:
    """What taking out a guard came to: `NOTICED`, or what is wrong; and the class of the error that told."""

    outcome: str
    error: str = ""


class Workshop:
    """A copy of the source in which guards can be taken out.

    Args:
        folder: For the copy.
        until_s: `time.monotonic()` after which nothing runs any more.
    """

    def __init__(self, folder: Path, until_s: float) -> None:
        self._source = folder / "src"
        self._report = folder / "report"
        self._until_s = until_s
        self._changes = 0
        shutil.copytree(ROOT / "src", self._source)

    @contextmanager
    def without(self, guard: Guard) -> Iterator[None]:
        """The copy without a guard, for a while."""
        place = self._source / Path(guard.file).relative_to("src")
        whole = place.read_text(encoding="utf-8")
        self._write(place, guard.taken_out_of(whole))
        try:
            yield
        finally:
            self._write(place, whole)

    def run(self, tests: Sequence[str]) -> list[Phase]:
        """How these tests end with the copy.

        Raises:
            TimeoutError: There was no time left for them.
        """
        self._report.write_text("")
        options = ["-q", "--tb=no", f"--timeout={TEST_S}", "-p", "no:cacheprovider", "-p", "guard_report"]
        path = os.pathsep.join((str(self._source), str(Path(__file__).parent)))
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=ROOT,
            env={"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": path, "PHI4_GUARD_REPORT": self._report},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(max(0.0, self._until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return [Phase(*json.loads(line)) for line in self._report.read_text(encoding="utf-8").splitlines()]

    def _write(self, place: Path, text: str) -> None:
        """Write a file so that no compiled form of what stood there before is taken for it."""
        self._changes += 1
        place.write_text(text, encoding="utf-8")
        stamp = place.stat().st_mtime + 10 * self._changes
        os.utime(place, (stamp, stamp))


def judge(guard: Guard, phases: Sequence[Phase]) -> Verdict:
    """Whether each test that is named for a guard has noticed that it is gone."""
    told = ""
    for test in guard.tests:
        found = _of(test, phases)
        errors = [phase.error for phase in found if phase.error is not None]
        if not found:
            return Verdict(f"broken: {test} did not run")
        if not errors:
            return Verdict(f"NOT noticed by {test}")
        fair = [
            phase.error
            for phase in found
            if phase.phase != "setup" and phase.error in (*_FAILED, *guard.fails_with)
        ]
        if not fair:
            return Verdict(f"broken: {test} ended with {', '.join(sorted(set(errors)))}")
        told = told or str(fair[0])
    return Verdict(NOTICED, told)


def not_passing(guards: Sequence[Guard], phases: Sequence[Phase]) -> list[str]:
    """Named tests that do not pass as things are."""
    wrong = []
    for test in sorted({test for guard in guards for test in guard.tests}):
        found = _of(test, phases)
        errors = {phase.error for phase in found if phase.error is not None}
        if not found or errors:
            wrong.append(f"{test}: {', '.join(sorted(errors)) or 'did not run'}")
    return wrong


def _of(test: str, phases: Sequence[Phase]) -> list[Phase]:
    return [phase for phase in phases if phase.test == test or phase.test.startswith(f"{test}[")]


def chosen(guards: Sequence[Guard], names: Sequence[str]) -> list[Guard]:
    """The guards that were asked for, by threat or by id; all when none were.

    Raises:
        BadTable: There are none of a name.
    """
    unknown = [name for name in names if not any(name in (guard.threat, guard.id) for guard in guards)]
    if unknown:
        raise BadTable(f"no guard or threat is called {', '.join(unknown)}")
    return [guard for guard in guards if not names or guard.threat in names or guard.id in names]


def prove(guards: Sequence[Guard], minutes: float) -> int:
    """Take each guard out and print what came of it; the exit code."""
    began, wrong = time.monotonic(), 0
    tests = sorted({test for guard in guards for test in guard.tests})
    with tempfile.TemporaryDirectory(prefix="phi4-guards-") as folder:
        workshop = Workshop(Path(folder), began + 60 * minutes)
        print(f"{len(tests)} tests of {len(guards)} guards, first as they are ...", flush=True)
        try:
            for line in not_passing(guards, workshop.run(tests)):
                wrong += 1
                print(f"  does not pass: {line}")
            if wrong:
                return 1
            for number, guard in enumerate(guards, 1):
                start = time.monotonic()
                with workshop.without(guard):
                    verdict = judge(guard, workshop.run(guard.tests))
                wrong += verdict.outcome != NOTICED
                told = f"{verdict.outcome}{verdict.error and f' ({verdict.error})'}"
                print(
                    f"{number:3}/{len(guards)} {time.monotonic() - began:6.0f} s  {guard.id:34} "
                    f"{time.monotonic() - start:5.1f} s  {told}",
                    flush=True,
                )
        except TimeoutError:
            print(f"stopped after {minutes:g} minutes, before the end; give --minutes more")
            return 1
    print(f"{len(guards) - wrong} of {len(guards)} guards are missed when they are gone")
    return 1 if wrong else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code is 0 when every guard that was taken out was missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", help="threats (A1) or guards (A1.fetching-off); none = all")
    parser.add_argument("--list", type=Path, default=TABLE, help="the list (tests/guards.toml)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="longest time in all (30)")
    parser.add_argument("--page", action="store_true", help="write docs/threats.md anew and end")
    options = parser.parse_args(arguments)
    try:
        threats = read_threats(options.list)
        if options.page:
            PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), threats), encoding="utf-8")
            return 0
        guards = chosen(guards_of(threats), options.names)
        for guard in guards:
            guard.taken_out_of((ROOT / guard.file).read_text(encoding="utf-8"))
        return prove(guards, options.minutes)
    except BadTable as error:
        print(f"without_guards: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
