"""One result of a check, how exceptions become one, and what all of them together mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from phi4.errors import InvalidArtifact, Phi4Error

Verdict = Literal["ok", "warning", "error"]
BROKEN_FILES = InvalidArtifact.exit_code
OTHER_ERRORS = Phi4Error.exit_code
_VERDICTS: tuple[Verdict, ...] = ("ok", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        verdict: "error" = answers cannot be had or trusted; "warning" = they can, at a price that is named.
        finding: What is so, with values.
        advice: What to do; empty where there is nothing to do.
        files: The model's files are at fault.
        name: The check; filled in by `judged`.
    """

    verdict: Verdict
    finding: str
    advice: str = ""
    files: bool = False
    name: str = ""


class LeftOut(Exception):
    """Raised by a check that needs what an earlier one could not find."""


def judged(name: str, check: Callable[[], Finding | None]) -> Finding | None:
    """Run a check; whatever it raises is its finding. None = the check has nothing to say about this model.

    A doctor meets installations whose libraries fail in ways nobody foresaw, so also exceptions that are
    no errors of ours end here, and say so.
    """
    try:
        found = check()
    except LeftOut as why:
        found = Finding("warning", str(why))
    except Phi4Error as error:
        message, _, advice = one_line(error).rpartition("; ")
        found = Finding("error", message or advice, advice if message else "", _at_fault(error))
    except OSError as error:
        found = Finding("error", one_line(error), "look at the permissions and the disk of this place")
    except Exception as error:
        what = f"{type(error).__name__}: {one_line(error)}"
        found = Finding(
            "error", f"the check itself failed ({what})", "install phi4 anew; if it stays, report it"
        )
    return None if found is None else replace(found, name=name)


def one_line(error: BaseException) -> str:
    """What an exception says, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def worst(findings: Iterable[Finding]) -> Verdict:
    """The gravest verdict; "ok" when there is none."""
    return max((finding.verdict for finding in findings), key=_VERDICTS.index, default="ok")


def exit_code(findings: Iterable[Finding]) -> int:
    """0 without errors, 5 when the model's files are broken, 1 otherwise."""
    errors = [finding for finding in findings if finding.verdict == "error"]
    if any(finding.files for finding in errors):
        return BROKEN_FILES
    return OTHER_ERRORS if errors else 0


def _at_fault(error: Phi4Error) -> bool:
    return isinstance(error, InvalidArtifact)
