"""A pytest plugin for `without_guards.py`: notes how each test ended, and with which class of error.

    PHI4_GUARD_REPORT=FILE pytest -p guard_report ...

One line of JSON for each phase of a test. pytest's own reports know failures by their text alone, which does
not tell a failed assertion from source that is broken.
"""

from __future__ import annotations

import json
import os
from typing import Any


def pytest_runtest_makereport(item: Any, call: Any) -> None:
    """Note one phase; pytest makes its own report beside this."""
    found = call.excinfo
    error = None if found is None else found.type.__name__
    if error == "Failed" and str(found.value).startswith("Timeout"):
        error = "Timeout"  # of pytest-timeout, which calls it a failure
    with open(os.environ["PHI4_GUARD_REPORT"], "a", encoding="utf-8") as report:
        report.write(json.dumps([item.nodeid, call.when, error]) + "\n")
