"""Whatever a check does, it ends as a finding; findings together have a verdict and an exit code."""

from __future__ import annotations

import pytest

from phi4.diagnose.case import Asked, Case, need
from phi4.diagnose.finding import Finding, exit_code, judged, worst
from phi4.errors import CheckpointMismatch, InvalidArtifact, InvalidRequest, MissingExtra


def failing(error: BaseException) -> Finding:
    def check() -> Finding:
        raise error

    found = judged("a check", check)
    assert found is not None and found.name == "a check"
    return found


def test_what_a_check_returns_gets_its_name() -> None:
    assert judged("disk", lambda: Finding("ok", "roomy")) == Finding("ok", "roomy", name="disk")
    assert judged("disk", lambda: None) is None


def test_error_of_ours_is_split_into_finding_and_advice() -> None:
    found = failing(InvalidRequest("the cup is full; drink; then pour"))
    assert (found.verdict, found.finding, found.advice) == ("error", "the cup is full; drink", "then pour")
    assert not found.files
    bare = failing(InvalidRequest("no advice here"))
    assert (bare.finding, bare.advice) == ("no advice here", "")


@pytest.mark.parametrize("error", [InvalidArtifact("broken; fetch"), CheckpointMismatch("misfit; fetch")])
def test_broken_files_are_marked_as_such(error: InvalidArtifact) -> None:
    assert failing(error).files


def test_error_of_the_system_is_a_finding_on_one_line() -> None:
    found = failing(PermissionError(13, "Permission\ndenied", "weights"))
    assert found.verdict == "error" and "Permission denied" in found.finding and found.advice


@pytest.mark.parametrize("error", [ImportError("lib.so"), ZeroDivisionError(), KeyError("x"), MemoryError()])
def test_fault_nobody_foresaw_is_a_finding_with_its_type(error: Exception) -> None:
    found = failing(error)
    assert found.verdict == "error" and type(error).__name__ in found.finding


def test_interruption_by_the_user_is_no_finding() -> None:
    with pytest.raises(KeyboardInterrupt):
        failing(KeyboardInterrupt())


def test_check_that_lacks_what_another_failed_to_find_says_which() -> None:
    case = Case(Asked())
    found = judged("weights", lambda: Finding("ok", str(need(case.path, "model"))))
    assert found is not None
    assert (found.verdict, found.finding) == ("warning", "left out: it needs what 'model' did not find")


def test_gravest_verdict_and_exit_code() -> None:
    ok, warning = Finding("ok", ""), Finding("warning", "")
    error, broken = Finding("error", ""), failing(InvalidArtifact("x"))
    assert (worst([]), exit_code([])) == ("ok", 0)
    assert (worst([warning, ok]), exit_code([warning, ok])) == ("warning", 0)
    assert (worst([ok, error, warning]), exit_code([ok, error, warning])) == ("error", 1)
    assert exit_code([error, broken]) == InvalidArtifact.exit_code == 5
    assert exit_code([failing(MissingExtra("no torch; install it"))]) == 1
