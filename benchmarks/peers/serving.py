"""One measured program: requests come in and answers go out as lines of JSON.

    python -P -m peers.serving llamacpp

The module `peers.NAME` has a class `Peer`, whose public methods are the operations. A request is
`{"op": name, "args": {...}}`, an answer `{"value": {...}}` or `{"error": text, "skipped": bool}`; the first
answer comes unasked, once everything is imported, and tells versions. Times are taken inside, so pipes are
in no figure. What libraries print goes to standard error. Standard library only: environments share no more.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import platform
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO


class Skipped(Exception):
    """Something that cannot be measured here; the message says why."""


def serve(name: str) -> None:
    """Answer requests until `quit` or the end of the input."""
    _be_killed_first()
    _die_with_driver()
    answers = _own_stdout()
    try:
        peer = importlib.import_module(f"peers.{name}").Peer()
    except ImportError as error:
        _say(answers, {"error": f"cannot be imported: {error}", "skipped": True})
        return
    _say(answers, {"value": hello(peer.packages)})
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "quit":
            return
        _say(answers, answer(peer, request))


def hello(packages: Sequence[str]) -> dict[str, Any]:
    """Who answers: Python and the versions of packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"versions": found}


def answer(peer: object, request: Mapping[str, Any]) -> dict[str, Any]:
    """Run one operation; a failure is an answer too."""
    try:
        operation = None if request["op"].startswith("_") else getattr(peer, request["op"], None)
        if not callable(operation):
            raise Skipped(f"this program has no operation {request['op']!r}")
        return {"value": operation(**request["args"])}
    except Exception as error:
        traceback.print_exc()
        reason = str(error) if isinstance(error, Skipped) else f"{type(error).__name__}: {error}"
        return {"error": reason, "skipped": isinstance(error, Skipped)}


def _own_stdout() -> TextIO:
    """The standard output for answers alone; everybody else gets standard error in its place."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _be_killed_first() -> None:
    """Where memory runs out, let the system end this program and not another."""
    try:
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")
    except OSError:
        return


def _die_with_driver() -> None:
    """Have the system end this program when the driver is gone: it may be stopped then, holding gigabytes.

    Source: Linux, prctl(2), PR_SET_PDEATHSIG.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _say(answers: TextIO, value: Mapping[str, Any]) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
