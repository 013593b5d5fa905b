"""What is wrong, said before a user sees bad text: the machine, the model's files, one canary a modality.

    for finding in examine(Asked("nano")):
        print(finding.verdict, finding.name, finding.finding, finding.advice)

Every check ends in a `Finding` and none in an exception: what a check raises becomes an error of its own.
Nothing is repaired and nothing but a hub model's files is fetched or written.
"""

from __future__ import annotations

from phi4.diagnose.case import Asked
from phi4.diagnose.examine import examine
from phi4.diagnose.finding import Finding, Verdict, exit_code, worst

__all__ = ["Asked", "Finding", "Verdict", "examine", "exit_code", "worst"]
